// Docs: the manual and the API reference, searchable.
import { address, call, send } from "../api.js";
import { copyButton, fill, h, loadStyle, notice } from "../dom.js";
import { route } from "./reference.js";

const MOST = 40; // found sections

export async function open() {
  const [document_, index] = await Promise.all([call("openapi.json"), manualPage("")]);
  await loadStyle("ui/docs.css");
  return new Docs(document_, index);
}

class Docs {
  constructor(api, index) {
    this.api = api;
    this.index = index;
    this.pages = [...index.querySelectorAll("a")].map((link) => link.textContent);
    this.routes = Object.entries(api.paths).flatMap(([path, methods]) =>
      Object.entries(methods)
        .filter(([method]) => method !== "head")
        .map(([method, { summary, tags }]) => ({ method, path, summary, tags })),
    );
    this.query = h("input", { type: "search", oninput: () => this.search(), "aria-label": "Search the documentation" });
    this.query.placeholder = "Search manual and routes";
    this.contents = h("nav", { class: "contents", "aria-label": "Documentation" }, this.listContents());
    this.found = h("div", { "aria-live": "polite" });
    this.article = h("article", { class: "wide manual" });
    this.element = h(
      "section",
      { class: "split docs" },
      h("div", { class: "side" }, this.query, this.found, this.contents),
      this.article,
    );
  }

  /** Show what the address names: a page of the manual and a heading, a route, or the list of pages. */
  async resume([kind, ...path] = []) {
    const here = location.hash;
    try {
      if (kind === "api") fill(this.article, ...route(this.api, path[0], decodeURI(`/${path.slice(1).join("/")}`)));
      else fill(this.article, kind === "manual" ? withCopyButtons(await manualPage(path[0])) : this.index);
    } catch (error) {
      fill(
        this.article,
        h("h1", {}, "Docs"),
        notice("error", "This can't be shown", error.message, () => this.resume([kind, ...path])),
      );
    }
    if (here !== location.hash) return;
    for (const link of this.contents.querySelectorAll("a")) {
      if (link.hash === here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const heading = kind === "manual" && path[1] ? this.article.querySelector(`#${CSS.escape(path[1])}`) : null;
    if (heading) heading.scrollIntoView();
    else if (kind) this.article.scrollIntoView();
  }

  listContents() {
    return [
      h("h2", {}, "Manual"),
      h("ul", {}, this.pages.map((name) => h("li", {}, h("a", { href: `#/docs/manual/${name}` }, name)))),
      h("h2", {}, "API reference"),
      ...this.api.tags.map(({ name }) => {
        const routes = this.routes.filter(({ tags }) => tags.includes(name));
        return h("details", {}, h("summary", {}, name), h("ul", {}, routes.map(routeLink)));
      }),
    ];
  }

  async search() {
    const words = this.query.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.contents.hidden = words.length > 0;
    if (!words.length) return fill(this.found);
    try {
      this.sections ??= Promise.all(this.pages.map(sectionsOf));
      const sections = (await this.sections).flat();
      if (this.query.value.toLowerCase().split(/\s+/).filter(Boolean).join() !== words.join()) return;
      const fits = (text) => words.every((word) => text.toLowerCase().includes(word));
      const routes = this.routes.filter(({ method, path, summary }) => fits(`${method} ${path} ${summary}`));
      const headings = sections.filter(({ title, page }) => fits(`${page} ${title}`));
      const texts = sections.filter((section) => !headings.includes(section) && fits(`${section.title} ${section.text}`));
      const found = [...headings, ...texts];
      fill(
        this.found,
        found.length || routes.length ? null : notice("empty", "Nothing found", "Try fewer or shorter words."),
        found.length ? [h("h2", {}, "Manual"), h("ul", {}, found.slice(0, MOST).map((one) => sectionLink(one, words[0])))] : null,
        routes.length ? [h("h2", {}, "Routes"), h("ul", {}, routes.slice(0, MOST).map(routeLink))] : null,
      );
    } catch (error) {
      this.sections = null;
      fill(this.found, notice("error", "The manual can't be searched", error.message, () => this.search()));
    }
  }
}

function routeLink({ method, path, summary }) {
  const name = `${method.toUpperCase()} ${path}`;
  return h("li", {}, h("a", { href: `#/docs/api/${method}${path}`, title: summary }, h("code", {}, name)));
}

function sectionLink({ page, id, title, text }, word) {
  const at = Math.max(text.toLowerCase().indexOf(word) - 40, 0);
  return h(
    "li",
    {},
    h("a", { href: `#/docs/manual/${page}/${id}` }, page === id ? title : `${page}: ${title}`),
    h("small", {}, `${at ? "…" : ""}${text.slice(at, at + 120)}…`),
  );
}

/** Return the content of a page of the manual; its links lead to the same in this page. */
export async function manualPage(name) {
  const path = name ? `docs/manual/${encodeURIComponent(name)}` : "docs/manual";
  const parsed = new DOMParser().parseFromString(/<main>.*<\/main>/s.exec(await (await send(path)).text())[0], "text/html");
  const content = document.importNode(parsed.querySelector("main"), true);
  for (const link of content.querySelectorAll("a[href]")) {
    const url = new URL(link.getAttribute("href"), `${address}/${path}`);
    if (url.href.startsWith(`${address}/docs`))
      link.href = `#/${url.pathname.slice(new URL(address).pathname.replace(/\/$/, "").length + 1)}${url.hash.replace("#", "/")}`;
  }
  for (const [at, table] of content.querySelectorAll("table").entries()) {
    const scroll = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Table ${at + 1}` });
    table.replaceWith(scroll);
    scroll.append(table);
  }
  for (const block of content.querySelectorAll("pre")) block.tabIndex = 0;
  return h("div", {}, ...content.childNodes);
}

/** Add a button to each block of code. */
function withCopyButtons(page) {
  for (const block of page.querySelectorAll("pre")) {
    const figure = h("figure", { class: "code" });
    block.replaceWith(figure);
    figure.append(block, copyButton(() => block.textContent));
  }
  return page;
}

/** Return the sections of a page of the manual: {page, id, title, text}. */
async function sectionsOf(page) {
  const sections = [];
  for (const child of (await manualPage(page)).children) {
    if (/^H[1-6]$/.test(child.tagName)) sections.push({ page, id: child.id, title: child.textContent, text: "" });
    else if (sections.length) sections.at(-1).text += `${child.textContent.replace(/\s+/g, " ")} `;
  }
  return sections;
}
