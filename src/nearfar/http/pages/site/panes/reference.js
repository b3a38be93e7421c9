// One route of the API: its fields and examples from the OpenAPI document, and a form that sends a request to it.
import { address, fetchWithKey } from "../api.js";
import { choice, copyButton, field, fill, h, notice, save } from "../dom.js";

const DEEPEST = 4; // levels of fields that are listed
const MOST = 50_000; // characters of a response that are shown

/** Return the elements that show an operation of an OpenAPI document. */
export function route(api, method, path) {
  const operation = api.paths[path]?.[method];
  if (!operation) throw new Error(`There is no route ${method?.toUpperCase()} ${path}.`);
  const { "application/json": json, "multipart/form-data": form } = operation.requestBody?.content ?? {};
  const schema = (json ?? form)?.schema;
  return [
    h("h1", {}, operation.summary),
    h("p", { class: "lead" }, h("code", {}, `${method.toUpperCase()} ${path}`), `, ${operation.tags.join(", ")}`),
    prose(operation.description),
    h("h2", {}, "Try it"),
    new Trial(method, path, inputsOf(api, operation, form), json).element,
    schema ? [h("h2", {}, "Body"), variants(api, schema).map((one, at) => details(api, one, at === 0))].flat() : null,
    h("h2", {}, "Responses"),
    Object.entries(operation.responses).map(([status, response]) => responseOf(api, status, response)),
  ].flat();
}

/** Return paragraphs of a text: names in backquotes become code. */
function prose(text) {
  return (text ?? "").split(/\n\s*\n/).filter(Boolean).map((part) => h("p", {}, ...inline(part)));
}

function inline(text) {
  return text.split("`").map((part, at) => (at % 2 ? h("code", {}, part) : part));
}

function responseOf(api, status, { description, content = {}, headers = {} }) {
  const [type, { schema, examples = {} } = {}] = Object.entries(content)[0] ?? [];
  return h(
    "details",
    { open: status < 300 },
    h("summary", {}, h("code", {}, status), " ", type ? h("small", {}, Object.keys(content).join(", ")) : null),
    prose(description),
    status < 300 ? Object.entries(examples).map(([name, { value }]) => example(name, value)) : null,
    table("Headers", Object.entries(headers).map(([name, header]) => [h("code", {}, name), ...inline(resolve(api, header).description ?? "")])),
    schema ? variants(api, schema).map((one) => details(api, one, false)) : null,
  );
}

function example(name, value) {
  const text = JSON.stringify(value, null, 2);
  return h("figure", {}, h("figcaption", {}, name, copyButton(() => text)), h("pre", { tabindex: 0 }, text));
}

/** Return a schema's fields, closed or open, which are listed once they are shown. */
function details(api, { name, schema }, open) {
  const list = h("div");
  const show = () => list.hasChildNodes() || fill(list, prose(schema.description), fields(api, schema, DEEPEST));
  if (open) show();
  return h("details", { open, ontoggle: show }, h("summary", {}, name), list);
}

function fields(api, schema, levels) {
  const required = new Set(schema.required);
  const named = Object.entries(schema.properties ?? {}).sort(([a], [b]) => required.has(b) - required.has(a));
  const rows = named.map(([name, value]) => {
    const inner = levels > 1 ? variants(api, value).filter((one) => one.schema.properties) : [];
    return [
      [h("code", {}, name), required.has(name) ? h("small", {}, " required") : null],
      [
        typeOf(api, value),
        value.default === undefined || value.default === null ? null : h("small", {}, ` default ${JSON.stringify(value.default)}`),
        prose(value.description),
        inner.map((one) => h("details", {}, h("summary", {}, one.name), fields(api, one.schema, levels - 1))),
      ].flat(),
    ];
  });
  return rows.length ? table("Fields", rows) : h("p", {}, typeOf(api, schema));
}

function table(name, rows) {
  if (!rows.length) return null;
  const body = rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), h("td", {}, ...rest)));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, h("table", {}, h("tbody", {}, body)));
}

/** Return an object, or the one that its $ref names. */
function resolve(api, object) {
  if (!object.$ref) return object;
  return object.$ref.slice(2).split("/").reduce((value, name) => value[name], api);
}

/** Return {name, schema} of each named schema that a schema may be, or is the items of; conditions on fields are left out. */
function variants(api, schema) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    const found = resolve(api, schema);
    return [{ name, schema: { ...found, required: [...(found.required ?? []), ...(schema.required ?? [])] } }];
  }
  const parts = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? []), ...(schema.items ? [schema.items] : [])];
  const found = new Map(parts.flatMap((part) => variants(api, part)).map((one) => [one.name, one]));
  if (found.size) return [...found.values()];
  return schema.properties ? [{ name: "fields", schema }] : [];
}

/** Return a schema's type in a few words. */
function typeOf(api, schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return [...new Set(choices.filter(({ type }) => type !== "null").map((one) => typeOf(api, one)))].join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `array${schema.items ? ` of (${typeOf(api, schema.items)})` : ""}`.replace(/\((\w+)\)$/, "$1");
  const { minimum: low, maximum: high } = schema;
  const range = low !== undefined && high !== undefined ? ` ${low} to ${high}` : low !== undefined ? ` ≥ ${low}` : high !== undefined ? ` ≤ ${high}` : "";
  return `${[schema.type ?? "any value"].flat().join(" or ")}${range}`;
}

/** A form for the path, the query and the body of a request, and what the server answers. */
class Trial {
  constructor(method, path, inputs, json) {
    Object.assign(this, { method, path, inputs });
    const examples = Object.entries(json?.examples ?? {});
    this.examples = choice(
      examples.map(([name], at) => [at, name]),
      () => this.choose(examples),
    );
    this.body = json ? h("textarea", { rows: 9, spellcheck: "false", class: "code" }) : null;
    if (this.body) this.choose(examples);
    this.answer = h("div", { "aria-live": "polite" });
    this.element = h(
      "form",
      { class: "trial", onsubmit: (event) => this.submit(event) },
      inputs.map(({ name, description, required, input }) => field(required ? `${name} (required)` : name, input, description)),
      examples.length > 1 ? field("Example", this.examples) : null,
      this.body ? field("Body", this.body) : null,
      h("p", { class: "row" }, h("button", {}, "Send")),
      this.answer,
    );
  }

  choose(examples) {
    this.body.value = examples.length ? JSON.stringify(examples[Number(this.examples.value)][1].value, null, 2) : "{}";
  }

  /** Return the URL and the options of the request. */
  request() {
    const of = (place) => this.inputs.filter((one) => one.in === place && (one.input.value !== "" || one.required));
    const values = Object.fromEntries(of("path").map(({ name, input }) => [name, encodeURIComponent(input.value)]));
    const url = new URL(address + this.path.replace(/\{(\w+)\}/g, (_, name) => values[name]));
    for (const { name, input } of of("query")) url.searchParams.set(name, input.value);
    if (this.body) return [url, { body: this.body.value, headers: { "content-type": "application/json" } }];
    const form = new FormData();
    for (const { name, input } of of("form")) form.append(name, input.files?.[0] ?? input.value);
    return [url, of("form").length ? { body: form } : {}];
  }

  async submit(event) {
    event.preventDefault();
    this.controller?.abort();
    const { signal } = (this.controller = new AbortController());
    const began = performance.now();
    this.answer.setAttribute("aria-busy", "true");
    try {
      const [url, options] = this.request();
      const response = await fetchWithKey(url, { ...options, method: this.method.toUpperCase(), signal });
      const content = await response.blob();
      const ms = performance.now() - began;
      fill(this.answer, ...(await shown(response, content, ms)));
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(this.answer, notice("error", "The request failed", error instanceof TypeError ? "The server isn't responding. Is it still running?" : error.message));
    }
    this.answer.removeAttribute("aria-busy");
  }
}

/** Return the fields of a request's path, query and form: {name, in, required, description, input}. */
function inputsOf(api, { parameters = [] }, form) {
  const { properties = {}, required } = form ? resolve(api, form.schema) : {};
  const parts = Object.entries(properties).map(([name, schema]) => ({ name, in: "form", required: required.includes(name), schema }));
  return [...parameters, ...parts].map((one) => ({ ...one, input: inputOf(one) }));
}

function inputOf({ required, schema, example }) {
  const values = schema.enum ?? (schema.type === "boolean" ? [true, false] : null);
  if (!values)
    return h("input", { type: schema.format === "binary" ? "file" : "text", required, value: example, placeholder: schema.default });
  const select = choice([...(required ? [] : [""]), ...values].map((value) => [value, `${value}`]));
  if (example) select.value = example;
  return select;
}

/** Return what shows a response: its status, headers and text, or a button that saves what isn't text. */
async function shown(response, content, ms) {
  const isText = /json|text|xml/.test(content.type);
  const text = isText ? await pretty(content) : "";
  return [
    h("p", {}, h("strong", { class: response.ok ? "status-ok" : "warn" }, `${response.status} ${response.statusText}`), ` in ${ms.toFixed(0)} ms, ${content.size.toLocaleString()} bytes`),
    isText ? h("pre", { tabindex: 0, class: "body" }, text.slice(0, MOST)) : null,
    text.length > MOST ? h("p", { class: "about" }, `The first ${MOST.toLocaleString()} of ${text.length.toLocaleString()} characters are shown.`) : null,
    isText && text.length <= MOST ? null : h("button", { type: "button", class: "quiet", onclick: () => save(content, "response") }, "Save the response"),
    h("details", {}, h("summary", {}, "Headers"), h("pre", { tabindex: 0 }, [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n"))),
  ];
}

/** Return a response's text, with JSON indented and its lists of numbers on one line. */
async function pretty(content) {
  const text = await content.text();
  if (text.length > MOST) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2).replace(/\[[-\d.e,\s]+\]/g, (numbers) => numbers.replace(/\s+/g, " "));
  } catch {
    return text;
  }
}
