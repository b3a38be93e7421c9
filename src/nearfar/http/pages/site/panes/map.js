// Map: thousands of the user's texts as points, near each other where their meaning is.
import { embed, models } from "../api.js";
import { choice, clamped, field, fill, h, inParts, notice, save } from "../dom.js";
import { pairList } from "../pairs.js";
import { Scatter } from "../scatter.js";
import { cosine, standingOut } from "../vectors.js";

const MOST = 5_000; // texts
const AT_ONCE = 64; // texts a request: often enough for the progress bar
const NEIGHBORS = 10;
const MANUAL = ["models", "operations", "observability", "security", "recipes"]; // pages of the example
const LISTED = 100; // texts of an outline
// Readable on both light and dark ground.
const COLORS = [
  "#14a394", "#e0703a", "#7c83f2", "#b98b14", "#e0559b", "#2f9fd8",
  "#79a52b", "#b06ee8", "#e2574c", "#8494a8", "#3cb371", "#c58a5a",
];

export async function open() {
  const served = (await models()).filter((model) => model.tasks.includes("embed"));
  const title = h("h1", {}, "Map texts");
  if (!served.length)
    return {
      element: h("section", {}, title, notice("empty", "No embedding model is served", "A map needs vectors.")),
    };
  return { element: new TextMap(served, title).element };
}

/** Return the table of a File. Throws an Error that says why it can't be read. */
function readTable(file) {
  const worker = new Worker(new URL("../workers/table.js", import.meta.url), { type: "module" });
  const done = new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
    worker.onerror = () => reject(new Error("A part of the page can't be loaded."));
  });
  worker.postMessage(file);
  return done.finally(() => worker.terminate());
}

class TextMap {
  constructor(served, title) {
    this.model = choice(served.map(({ name }) => [name, name]));
    this.file = h("input", {
      type: "file",
      class: "sr",
      accept: ".csv,.tsv,.jsonl,.ndjson,.json,.txt,.md,.parquet,text/*",
      onchange: () => this.read(this.file.files[0]),
    });
    this.file.id = "map-file";
    this.drop = h(
      "label",
      {
        class: "drop",
        for: "map-file",
        ondragover: (event) => event.preventDefault(),
        ondrop: (event) => this.dropped(event),
      },
      h("strong", { dir: "auto" }, "Drop or choose a file, or paste lines"),
      h("span", {}, `CSV, JSON lines, parquet or plain lines, up to ${MOST.toLocaleString()} texts`),
    );
    this.about = h("div", { "aria-live": "polite" });
    this.controls = h("div", { hidden: true });
    this.canvas = h("canvas", {
      class: "scatter",
      role: "application",
      tabindex: 0,
      "aria-label": "Map of the texts: arrow keys step through them, Enter shows neighbors",
      onkeydown: (event) => this.step(event),
    });
    this.tip = h("div", { class: "tip", hidden: true });
    this.legend = h("ul", { class: "legend" });
    this.list = h("div", { class: "neighbors", "aria-live": "polite" });
    this.query = h("input", {
      type: "search",
      dir: "auto",
      placeholder: "Find texts like…",
      "aria-label": "Find texts like",
      onchange: () => this.search(),
      oninput: () => this.query.value || this.reset(),
    });
    const button = (name, onclick, pressed) =>
      h("button", { type: "button", class: "quiet", "aria-pressed": pressed, onclick }, name);
    this.outliers = button("Outliers", () => this.showOutliers(), "false");
    this.duplicates = button("Duplicates", () => this.showDuplicates(), "false");
    this.all = button("Show all (Esc)", () => this.reset());
    this.all.disabled = true;
    this.tools = h("div", { class: "row tools" }, this.query, this.outliers, this.duplicates, this.all);
    this.hint = h("p", { class: "about" }, "Click a dot for similar texts, or draw around some. Scroll to zoom.");
    this.stage = h("div", {}, this.tools, h("div", { class: "stage" }, this.canvas, this.tip), this.hint);
    this.stage.hidden = true;
    this.saving = h(
      "p",
      { class: "row" },
      button("Save vectors (.jsonl)", () => this.saveVectors()),
      button("Save picture (.png)", () => this.savePicture()),
    );
    this.empty = notice(
      "empty",
      "Nothing to show yet",
      "Texts with a similar meaning become neighbors on the map. They are sent to this nearfar server only.",
      () => this.readManual(),
      "Map the manual’s paragraphs",
    );
    this.scatter = new Scatter(
      this.canvas,
      {
        hover: (at, x, y) => this.hover(at, x, y),
        pick: (at) => this.pick(at),
        lasso: (found) => this.select(found, `${counted(found)} inside the outline`),
      },
      (at) => this.colorOf(at),
    );
    this.element = h(
      "section",
      { class: "split" },
      h(
        "div",
        { class: "side" },
        title,
        h("p", { class: "lead" }, "See topics, outliers and duplicates in your texts."),
        this.file,
        this.drop,
        field("Model", this.model),
        this.about,
        this.controls,
      ),
      h("div", { class: "wide" }, this.empty, this.stage, this.legend, this.list),
    );
    addEventListener("keydown", ({ key }) => key === "Escape" && this.element.isConnected && this.reset());
    addEventListener("paste", (event) => this.paste(event));
  }

  paste({ target, clipboardData }) {
    const text = clipboardData.getData("text");
    if (!this.element.isConnected || !text || target.matches("input:not([type=file])")) return;
    this.read(new File([text], "Pasted lines"));
  }

  dropped(event) {
    event.preventDefault();
    if (event.dataTransfer.files.length) this.read(event.dataTransfer.files[0]);
  }

  /** Map an example that every server has. */
  async readManual() {
    try {
      const { manualPage } = await import("./docs.js");
      const pages = await Promise.all(MANUAL.map(manualPage));
      const rows = pages.flatMap((page, at) =>
        [...page.querySelectorAll("p, li")].map(({ textContent: text }) => JSON.stringify({ text, page: MANUAL[at] })),
      );
      await this.read(new File([rows.join("\n")], "manual.jsonl"));
    } catch (error) {
      fill(this.about, notice("error", "The manual can't be read", error.message));
    }
  }

  async read(file) {
    if (!file) return;
    this.stop();
    this.reset();
    this.drop.firstChild.textContent = file.name;
    this.drop.lastChild.textContent = "Drop, choose or paste others";
    this.controls.hidden = this.stage.hidden = true;
    this.empty.hidden = false;
    fill(this.legend);
    try {
      this.table = await readTable(file);
      if (!this.table.rows.length) throw new Error("The file has no texts.");
    } catch (error) {
      fill(this.about, notice("error", `${file.name} can't be read`, error.message));
      return;
    }
    const { columns } = this.table;
    this.column = choice(
      columns.map((name, at) => [at, name]),
      () => this.run(),
    );
    this.column.value = this.table.text;
    this.group = choice([["", "one color"], ...this.table.groups.map((at) => [at, columns[at]])], () =>
      this.paint(),
    );
    this.layout = choice(
      [
        ["umap", "UMAP: groups of similar texts"],
        ["pca", "PCA: overall distances"],
      ],
      () => this.place(),
    );
    fill(
      this.controls,
      columns.length > 1 ? field("Column with the texts", this.column) : null,
      this.group.options.length > 1 ? field("Color by", this.group) : null,
      field("Layout", this.layout),
      this.saving,
    );
    await this.run();
  }

  stop() {
    this.controller?.abort();
    this.worker?.terminate();
    this.layouts = {};
    this.nearest = this.at = null;
  }

  async run() {
    this.stop();
    const { signal } = (this.controller = new AbortController());
    const rows = this.table.rows.filter((row) => row[this.column.value].trim());
    this.rows = rows.slice(0, MOST);
    this.texts = this.rows.map((row) => row[this.column.value]);
    const bar = h("progress", { max: this.texts.length, value: 0, "aria-label": "texts embedded" });
    const state = h("small");
    const cancel = h(
      "button",
      {
        type: "button",
        class: "quiet",
        onclick: () => {
          this.stop();
          fill(this.about, notice("hint", "Canceled"));
        },
      },
      "Cancel",
    );
    fill(this.about, bar, state, h("p", { class: "row" }, cancel));
    const began = performance.now();
    this.vectors = [];
    try {
      while (this.vectors.length < this.texts.length) {
        const part = this.texts.slice(this.vectors.length, this.vectors.length + AT_ONCE);
        this.vectors.push(...(await embed(this.model.value, part, {}, signal)).vectors);
        bar.value = this.vectors.length;
        const speed = (this.vectors.length / (performance.now() - began)) * 1000;
        state.textContent = `${this.vectors.length.toLocaleString()} of ${this.texts.length.toLocaleString()} texts, ${speed.toFixed(0)} per second`;
      }
    } catch (error) {
      if (error.name !== "AbortError")
        fill(
          this.about,
          notice("error", "The texts can't be embedded", error.message, () => this.run()),
        );
      return;
    }
    cancel.remove();
    const left = rows.length - this.rows.length;
    state.textContent += left ? `; the other ${left.toLocaleString()} are left out` : "";
    state.textContent += this.table.note ? `; ${this.table.note}` : "";
    this.controls.hidden = this.stage.hidden = false;
    this.empty.hidden = true;
    this.reset();
    this.paint();
    this.project(bar, state);
  }

  project(bar, state) {
    const size = this.vectors[0].length,
      flat = new Float32Array(size * this.vectors.length);
    this.vectors.forEach((vector, at) => flat.set(vector, at * size));
    this.worker = new Worker(new URL("../workers/projection.js", import.meta.url));
    bar.removeAttribute("value");
    const about = state.textContent;
    if (this.vectors.length >= 15) state.textContent += ". UMAP is being computed; until then PCA is shown.";
    this.worker.onmessage = ({ data }) => {
      if (data.kind === "progress") {
        bar.max = 1;
        bar.value = data.share;
        return;
      }
      if (data.kind === "nearest") {
        this.nearest = data;
        return;
      }
      this.layouts[data.kind] = data.points;
      if (data.kind === "umap" || this.vectors.length < 15) {
        bar.remove();
        state.textContent = about;
      }
      this.place();
    };
    this.worker.onerror = () => {
      bar.remove();
      state.textContent = about + "; the map can't be computed in this browser";
    };
    this.worker.postMessage({ flat, count: this.vectors.length }, [flat.buffer]);
  }

  place() {
    const points = this.layouts[this.layout.value] ?? this.layouts.pca;
    if (points) this.scatter.show(points);
  }

  paint() {
    const column = this.group.value;
    const values = column === "" ? [] : [...new Set(this.rows.map((row) => row[column]))].sort();
    this.colors = new Map(values.map((value, at) => [value, COLORS[at % COLORS.length]]));
    fill(
      this.legend,
      values.map((value) =>
        h(
          "li",
          {},
          h(
            "button",
            { type: "button", class: "quiet copy", onclick: () => this.showGroup(value) },
            h("i", { style: { background: this.colors.get(value) } }),
            h("bdi", {}, value || "empty"),
          ),
        ),
      ),
    );
    this.scatter.schedule();
  }

  colorOf(at) {
    return this.colors?.get(this.rows[at]?.[this.group.value]) ?? COLORS[0];
  }

  hover(at, x, y) {
    this.tip.hidden = at < 0;
    this.canvas.style.cursor = at < 0 ? "crosshair" : "pointer";
    if (at < 0) return;
    fill(this.tip, this.texts[at].slice(0, 300), h("small", {}, this.source(at)));
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [right, below] = [x > width / 2, y > height / 2];
    this.tip.style.left = right ? "auto" : `${x + 14}px`;
    this.tip.style.right = right ? `${width - x + 14}px` : "auto";
    this.tip.style.top = below ? "auto" : `${y + 14}px`;
    this.tip.style.bottom = below ? `${height - y + 14}px` : "auto";
  }

  /** Return where a text is in the file, by its row and what identifies that. */
  source(at) {
    const { rows, columns, id } = this.table;
    const shown = [...new Set([id, Number(this.group.value || -1)])].filter((column) => column >= 0);
    return [`row ${rows.indexOf(this.rows[at]) + 1}`, ...shown.map((column) => `${columns[column]} ${this.rows[at][column]}`)]
      .join(" · ")
      .slice(0, 150);
  }

  described(at) {
    return h("span", {}, clamped(this.texts[at]), h("small", { dir: "auto" }, this.source(at)));
  }

  /** Show which dots rows of the list are. */
  point(indices) {
    this.scatter.ring(indices);
    const [at = -1] = indices;
    this.hover(at, ...(at < 0 ? [] : this.scatter.place(at)));
  }

  /** Step through the texts with the arrow keys; Enter shows the neighbors of one. */
  step(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter") this.pick(this.at ?? -1);
    if (!by) return;
    event.preventDefault();
    this.at = ((this.at ?? -by) + by + this.texts.length) % this.texts.length;
    this.point([this.at]);
  }

  showOutliers() {
    if (!this.nearest) return this.wait();
    const { best } = this.nearest;
    const found = [...best.keys()].sort((a, b) => best[a] - best[b]).slice(0, NEIGHBORS);
    this.select(found, "Outliers first: the number is the similarity to the nearest other text", best);
    this.outliers.setAttribute("aria-pressed", true);
  }

  showDuplicates() {
    if (!this.nearest) return this.wait();
    const { best, index } = this.nearest;
    const pairs = [...best.keys()]
      .filter((at) => index[index[at]] !== at || at < index[at])
      .map((at) => [at, index[at], best[at]])
      .sort((a, b) => b[2] - a[2]);
    const marked = pairs.slice(0, standingOut(pairs) || NEIGHBORS).flatMap(([a, b]) => [a, b]);
    const list = pairList(pairs, (at) => this.described(at), (pair) => this.point(pair));
    this.showMarked(marked, "Possible duplicates: the most similar pairs", list);
    this.duplicates.setAttribute("aria-pressed", true);
  }

  showGroup(value) {
    const found = [...this.rows.keys()].filter((at) => this.rows[at][this.group.value] === value);
    this.select(found, `${counted(found)}: ${shortened(value || "empty")}`);
  }

  wait() {
    fill(this.list, notice("hint", "Still comparing all texts", "Try again in a moment."));
  }

  /** Show all texts alike. */
  reset() {
    this.showMarked([]);
  }

  pick(at) {
    if (at < 0) this.reset();
    else this.showNearest(this.vectors[at], this.texts[at]);
  }

  async search() {
    const query = this.query.value.trim();
    if (!query) return this.reset();
    try {
      const {
        vectors: [wanted],
      } = await embed(this.model.value, [query]);
      if (query !== this.query.value.trim()) return;
      this.showNearest(wanted, query);
      this.query.value = query;
    } catch (error) {
      fill(this.list, notice("error", "The texts can't be searched", error.message));
    }
  }

  showNearest(wanted, text) {
    const scores = this.vectors.map((vector) => cosine(wanted, vector));
    const found = [...scores.keys()].sort((a, b) => scores[b] - scores[a]).slice(0, NEIGHBORS);
    this.select(found, `${counted(found)} like “${shortened(text)}”`, scores);
  }

  select(found, heading, scores) {
    const rows = found
      .slice(0, LISTED)
      .map((at) =>
        h(
          "li",
          { onpointerenter: () => this.point([at]), onpointerleave: () => this.point([]) },
          scores ? h("b", {}, scores[at].toFixed(3)) : null,
          this.described(at),
        ),
      );
    this.showMarked(found, heading + (found.length > LISTED ? `; the first ${LISTED} are listed` : ""), h("ol", { class: "found", tabindex: 0 }, rows));
  }

  /** Mark these texts on the map, and list them; none means all. */
  showMarked(indices, heading, list) {
    this.query.value = "";
    this.scatter.mark(indices);
    this.point([]);
    this.all.disabled = !indices.length;
    for (const button of [this.outliers, this.duplicates]) button.setAttribute("aria-pressed", false);
    fill(this.list, heading && h("h2", { dir: "auto" }, heading), list);
  }

  async saveVectors() {
    const { columns } = this.table; // the vector joins the columns of its row
    const lines = (from) =>
      this.rows.slice(from, from + 50).map((row, at) => {
        const fields = Object.fromEntries(columns.map((name, column) => [name, row[column]]));
        const nearest_similarity = this.nearest?.best[from + at];
        return `${JSON.stringify({ ...fields, nearest_similarity, embedding: [...this.vectors[from + at]] })}\n`;
      });
    const starts = Array.from({ length: Math.ceil(this.rows.length / 50) }, (_, at) => at * 50);
    const parts = await inParts(starts, (from) => new Blob(lines(from)));
    save(new Blob(parts, { type: "application/jsonl" }), "vectors.jsonl");
  }

  /** Save the map as it is shown, twice as large where that is drawn quickly, with its background and, below it, the legend. */
  savePicture() {
    const ratio = (devicePixelRatio || 1) * (this.rows.length > 1_000 ? 1 : 2);
    this.scatter.draw(ratio);
    const { width, height } = this.canvas,
      line = Math.round(28 * ratio),
      style = getComputedStyle(this.stage);
    const picture = h("canvas", { width, height: height + line * this.colors.size });
    const context = picture.getContext("2d");
    context.fillStyle = style.backgroundColor;
    context.fillRect(0, 0, picture.width, picture.height);
    context.drawImage(this.canvas, 0, 0);
    this.scatter.schedule();
    context.font = `${line / 2}px system-ui`;
    [...this.colors].forEach(([value, color], at) => {
      const y = height + line * at;
      context.fillStyle = color;
      context.beginPath();
      context.arc(line * 0.75, y + line / 4, line / 4, 0, 7);
      context.fill();
      context.fillStyle = style.color;
      context.fillText(value || "empty", line * 1.5, y + line * 0.45);
    });
    picture.toBlob((blob) => save(blob, "map.png"));
  }
}

const counted = ({ length }) => `${length.toLocaleString()} ${length === 1 ? "text" : "texts"}`;

function shortened(text) {
  return text.length > 60 ? `${text.slice(0, 60).replace(/[\s\p{P}]+$/u, "")}…` : text;
}
