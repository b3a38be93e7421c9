// Compare: how similar the user's own texts are, which are nearest, and what each becomes as tokens.
import { call, embed, models } from "../api.js";
import { choice, clamped, command, debounced, field, fill, h, lines, notice } from "../dom.js";
import { pairList } from "../pairs.js";
import { loss, pairs, similarities, unpackBits } from "../vectors.js";

const EXAMPLE = [
  "How do I reset my password?",
  "I can't log in because I forgot my passphrase.",
  "Where is my package?",
  "When will my parcel come?",
  "The delivery hasn't arrived yet.",
  "Which wine goes well with grilled fish?",
];
const MOST = 60; // texts: a matrix of more can't be read
const VALUES_UP_TO = 14; // texts: above, the cells have no room for numbers

export async function open() {
  const served = (await models()).filter((model) => model.tasks.includes("embed"));
  const title = h("h1", {}, "Compare texts");
  if (!served.length) {
    return {
      element: h(
        "section",
        {},
        title,
        notice(
          "empty",
          "No embedding model is served",
          command("nearfar serve intfloat/multilingual-e5-small"),
        ),
      ),
    };
  }
  return { element: new Compare(served, title).element };
}

class Compare {
  constructor(served, title) {
    this.served = served;
    this.update = debounced((signal) => this.run(signal));
    this.texts = h("textarea", {
      rows: 9,
      spellcheck: "false",
      dir: "auto",
      oninput: () => this.change(),
      value: EXAMPLE.join("\n"),
    });
    this.clear = h("button", { type: "button", class: "quiet copy", onclick: () => this.empty() }, "Clear");
    this.model = choice(
      served.map(({ name }) => [name, name]),
      () => this.chooseModel(),
    );
    const change = () => this.change();
    this.prompt = choice([], change);
    this.dimensions = choice([], change);
    this.output = choice(
      [
        ["float", "float32: exact"],
        ["int8", "int8: a quarter of the bytes"],
        ["binary", "1 bit: 1/32 of the bytes"],
      ],
      change,
    );
    this.result = h("div", { class: "result", "aria-live": "polite", "aria-busy": "true" });
    this.tokens = h("div", { class: "tokens" });
    this.promptField = field("Prompt", this.prompt);
    this.element = h(
      "section",
      { class: "split" },
      h(
        "div",
        { class: "side" },
        title,
        h("p", { class: "lead" }, "The closer to 1, the more similar the model finds two texts."),
        field("Texts, one per line", this.texts, this.clear),
        h(
          "div",
          { class: "fields" },
          field("Model", this.model, null, "full"),
          this.promptField,
          field("Dimensions", this.dimensions),
          field("Number format", this.output, null, "full"),
        ),
      ),
      h("div", { class: "wide" }, this.result, this.tokens),
    );
    this.chooseModel();
  }

  chooseModel() {
    const model = this.served.find(({ name }) => name === this.model.value);
    const names = Object.keys(model.prompts);
    fill(
      this.prompt,
      h("option", { value: "" }, model.default_prompt ? `default (${model.default_prompt})` : "none"),
      names.map((name) => h("option", { value: name }, name)),
    );
    this.promptField.hidden = !names.length;
    const sizes = [model.dim, 1024, 768, 512, 256, 128, 64, 32].filter((size, at) => at === 0 || size < model.dim);
    fill(
      this.dimensions,
      sizes.map((size, at) => h("option", { value: at ? size : "" }, at ? size : `${size} (all)`)),
    );
    this.info = model;
    this.change(true);
  }

  change(atOnce) {
    this.result.setAttribute("aria-busy", "true");
    this.update(atOnce);
  }

  empty() {
    this.texts.value = "";
    this.texts.focus();
    this.change(true);
  }

  async run(signal) {
    const texts = lines(this.texts.value).slice(0, MOST);
    try {
      const name = this.prompt.value ? `${this.info.name}:${this.prompt.value}` : this.info.name;
      const dimensions = Number(this.dimensions.value) || undefined;
      const isEnough = texts.length > 1;
      const [exact, numbers, tokens] = await Promise.all([
        isEnough && embed(name, texts, { dimensions }, signal),
        isEnough && this.output.value !== "float" && quantized(name, texts, this.output.value, dimensions, signal),
        texts.length ? call("tokenize", { model: this.info.name, inputs: texts }, signal) : [],
      ]);
      if (isEnough) {
        const matrix = similarities(exact.vectors);
        this.show(texts, numbers ? similarities(numbers) : matrix, numbers && loss(matrix, similarities(numbers)), exact);
      } else fill(this.result, notice("empty", "Write at least two texts", "Each line is one text."));
      this.showTokens(texts, tokens);
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(this.tokens);
      fill(
        this.result,
        notice("error", "The texts can't be compared", error.message, () => this.change(true)),
      );
    }
    this.result.removeAttribute("aria-busy");
  }

  show(texts, matrix, lost, exact) {
    const nearest = pairs(matrix);
    const lowest = Math.min(nearest.at(-1)[2], 0.999);
    const bytes = { float: 4, int8: 1, binary: 1 / 8 }[this.output.value] * exact.vectors[0].length;
    fill(
      this.result,
      h("h2", {}, "Nearest pairs"),
      pairList(nearest, (at) => clamped(texts[at])),
      h("h2", {}, "Similarities"),
      heatMap(texts, matrix, lowest),
      h(
        "p",
        { class: "about" },
        `${exact.tokens} tokens in all, ${bytes.toLocaleString()} bytes per vector. Colors range from ${lowest.toFixed(2)} to 1. `,
        exact.cut
          ? [
              h(
                "a",
                { class: "warn", href: "#tokens", onclick: (event) => this.showCut(event) },
                `${exact.cut} tokens were cut: show where`,
              ),
              ". ",
              h("a", { href: "#/docs/manual/api/input" }, "What to do"),
              ".",
            ]
          : null,
        lost
          ? ` Against float32, similarities differ by at most ${lost.largest.toFixed(4)}, and ${(100 * lost.kept).toFixed(1)}% of all pairs keep their order.`
          : null,
      ),
    );
  }

  showCut(event) {
    event.preventDefault();
    this.tokens.firstChild.open = true;
    this.tokens.querySelector(".cut").scrollIntoView({ block: "center" });
  }

  showTokens(texts, tokens) {
    fill(
      this.tokens,
      texts.length > 0 && h(
        "details",
        { open: tokens.length === 1 || tokens.some((each) => each.length > this.info.max_tokens) },
        h("summary", {}, `Tokens, as the model reads them (at most ${this.info.max_tokens.toLocaleString()} per text)`),
        h(
          "ol",
          {},
          tokens.map((each, at) => h("li", {}, tokenRow(texts[at], each, this.info.max_tokens))),
        ),
      ),
    );
  }
}

/** Return the vectors as int8 numbers or as ±1. */
async function quantized(model, input, output, dimensions, signal) {
  const body = { model, input, output_dtype: output === "int8" ? "int8" : "ubinary", output_dimension: dimensions };
  const { data } = await call("voyage/v1/embeddings", body, signal);
  return data.map(({ embedding }) => (output === "int8" ? embedding : unpackBits(embedding)));
}

function heatMap(texts, matrix, lowest) {
  const withValues = texts.length <= VALUES_UP_TO;
  const shades = matrix.map((row) => row.map((value) => Math.min(Math.max((value - lowest) / (1 - lowest), 0), 1)));
  const columns = texts.map((text, at) => h("th", { scope: "col", title: text }, at + 1));
  const names = texts.map((text, at) =>
    h("th", { scope: "row", title: text }, h("span", { class: "number" }, at + 1), h("span", { class: "text", dir: "auto" }, text)),
  );
  const readout = h("p", { class: "readout about" }, "Point at a cell to read its pair.");
  const point = ({ target, clientX }) => {
    const cell = target.closest("tbody td");
    if (!cell) return;
    const box = cell.getBoundingClientRect();
    const i = cell.parentElement.rowIndex - 1;
    const at = Math.floor(((clientX - box.left) / box.width) * texts.length);
    const j = withValues ? cell.cellIndex - 1 : Math.min(Math.max(at, 0), texts.length - 1);
    columns.forEach((column, at) => column.classList.toggle("on", at === j));
    names.forEach((name, at) => name.classList.toggle("on", at === i));
    fill(readout, h("b", {}, matrix[i][j].toFixed(4)), ` ${i + 1}: `, h("bdi", {}, texts[i]), ` ↔ ${j + 1}: `, h("bdi", {}, texts[j]));
  };
  const rows = matrix.map((row, i) =>
    h("tr", {}, names[i], withValues ? row.map((value, j) => heatCell(value, shades[i][j])) : heatStrip(row, shades[i])),
  );
  return [
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Matrix of similarities" },
      h(
        "table",
        { class: withValues ? "heat" : "heat small", onmousemove: point, onclick: point },
        h("thead", {}, h("tr", {}, h("td"), columns)),
        h("tbody", {}, rows),
      ),
    ),
    readout,
  ];
}

function heatCell(value, shade) {
  const tone = shade > 0.9 ? "full" : shade > 0.55 ? "strong" : null;
  return h("td", { class: tone, style: { "--shade": percent(shade) } }, value.toFixed(2).replace(/^(-?)0\./, "$1."));
}

/** Return a row of many cells as one element with a gradient: thousands of elements take too long to lay out. */
function heatStrip(row, shades) {
  const stops = shades.map(
    (shade, at) =>
      `color-mix(in oklab, var(--heat) ${percent(shade)}, var(--surface)) ${percent(at / row.length)} ${percent((at + 1) / row.length)}`,
  );
  return h(
    "td",
    { colspan: row.length, style: { background: `linear-gradient(to right, ${stops.join()})` } },
    h("span", { class: "sr" }, row.map((value) => value.toFixed(2)).join(" ")),
  );
}

const percent = (share) => `${Number((100 * share).toFixed(2))}%`;

function tokenRow(text, tokens, limit) {
  const shown = tokens.slice(0, limit + 40);
  const ends = tokens.filter((token) => token.special).length;
  const room = limit - ends;
  const bytes = new TextEncoder().encode(text); // the server counts a token's place in bytes
  const decoder = new TextDecoder();
  let used = 0;
  const parts = shown.map((token) => {
    const cut = !token.special && ++used > room;
    const name =
      token.start === null ? token.text : decoder.decode(bytes.subarray(token.start, token.stop)) || token.text;
    return h(
      "span",
      {
        class: ["token", token.special && "special", cut && "cut"].filter(Boolean).join(" "),
        dir: token.special ? "ltr" : null, // doesn't decide the paragraph's direction
        title: `${token.text} · id ${token.id}${cut ? " · cut" : ""}`,
      },
      name,
    );
  });
  const lost = Math.max(tokens.length - ends - room, 0);
  const stop = lost && tokens.filter((token) => !token.special)[room - 1].stop;
  const kept = stop ? decoder.decode(bytes.subarray(Math.max(stop - 120, 0), stop)).slice(-24) : "";
  return [
    h("p", { dir: "auto" }, parts, tokens.length > shown.length ? " …" : null),
    h(
      "small",
      { class: lost ? "warn" : null },
      lost ? `${tokens.length} tokens: ${lost} at the end don't reach the model, after “…${kept}”` : `${tokens.length} tokens`,
    ),
  ];
}
