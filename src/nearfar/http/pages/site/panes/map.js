// Map: thousands of the user's texts as points, near each other where their meaning is.
import { embed, models } from "../api.js";
import { choice, clamped, field, fill, h, inParts, notice, save } from "../dom.js";
import { Scatter } from "../scatter.js";
import { cosine } from "../vectors.js";

const MOST = 5_000; // texts
const AT_ONCE = 64; // texts a request: often enough for the progress bar
const NEIGHBORS = 10;
const MANUAL = ["models", "operations", "observability", "security", "recipes"]; // pages of the example
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
      h("strong", {}, "Drop a file, or choose one"),
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
    this.stage = h("div", { class: "stage", hidden: true }, this.canvas, this.tip);
    this.empty = notice(
      "empty",
      "Nothing to show yet",
      "Texts with a similar meaning become neighbors on the map. The file stays on this machine.",
      () => this.readManual(),
      "Map the manual’s paragraphs",
    );
    this.scatter = new Scatter(
      this.canvas,
      {
        hover: (at, x, y) => this.hover(at, x, y),
        pick: (at) => this.pick(at),
        lasso: (found) => this.select(found, "inside the outline"),
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
    fill(this.list);
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
    this.column = choice(columns.map((name, at) => [at, name]), () => this.run());
    this.column.value = this.table.text;
    this.group = choice([["", "one color"], ...this.table.groups.map((at) => [at, columns[at]])], () =>
      this.paint(),
    );
    this.query = h("input", { type: "search", dir: "auto", onchange: () => this.search() });
    this.layout = choice([ ["umap", "UMAP: neighborhoods"], ["pca", "PCA: overall directions"], ], () => this.place());
    fill(
      this.controls,
      columns.length > 1 ? field("Column with the texts", this.column) : null,
      this.group.options.length > 1 ? field("Color by", this.group) : null,
      field("Layout", this.layout),
      field("Find texts like", this.query, "Press Enter. Or draw around points, or click one."),
      h(
        "p",
        { class: "row" },
        h("button", { type: "button", class: "quiet", onclick: () => this.showOutliers() }, "Outliers"),
        h("button", { type: "button", class: "quiet", onclick: () => this.showDuplicates() }, "Duplicates"),
        h("button", { type: "button", class: "quiet", onclick: () => this.saveVectors() }, "Save vectors"),
        h("button", { type: "button", class: "quiet", onclick: () => this.savePicture() }, "Save picture"),
      ),
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
        fill(this.about, notice("error", "The texts can't be embedded", error.message, () => this.run()));
      return;
    }
    cancel.remove();
    const left = rows.length - this.rows.length;
    state.textContent += left ? `; the other ${left.toLocaleString()} are left out` : "";
    state.textContent += this.table.note ? `; ${this.table.note}` : "";
    this.controls.hidden = this.stage.hidden = false;
    this.empty.hidden = true;
    fill(this.list);
    this.paint();
    this.project(bar, state);
  }

  project(bar, state) {
    const size = this.vectors[0].length,
      flat = new Float32Array(size * this.vectors.length);
    this.vectors.forEach((vector, at) => flat.set(vector, at * size));
    this.worker = new Worker(new URL("../workers/projection.js", import.meta.url));
    bar.removeAttribute("value");
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
      if (data.kind === "umap" || this.vectors.length < 15) bar.remove();
      this.place();
    };
    this.worker.onerror = () => {
      bar.remove();
      state.textContent += "; the map can't be computed in this browser";
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
          h("i", { style: { background: this.colors.get(value) } }),
          h("span", { dir: "auto" }, value || "empty"),
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
    this.tip.textContent = this.texts[at].slice(0, 300);
    const right = x > this.canvas.clientWidth / 2;
    this.tip.style.left = right ? "auto" : `${x + 14}px`;
    this.tip.style.right = right ? `${this.canvas.clientWidth - x + 14}px` : "auto";
    this.tip.style.top = `${y + 14}px`;
  }

  /** Step through the texts with the arrow keys; Enter shows the neighbors of one. */
  step(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter") this.pick(this.at ?? -1);
    if (event.key === "Escape") this.pick(-1);
    if (!by) return;
    event.preventDefault();
    this.at = ((this.at ?? -by) + by + this.texts.length) % this.texts.length;
    this.scatter.mark([this.at]);
    this.hover(this.at, ...this.scatter.place(this.at));
  }

  showOutliers() {
    if (!this.nearest) return this.wait();
    const { best } = this.nearest;
    this.select(
      [...best.keys()].sort((a, b) => best[a] - best[b]).slice(0, NEIGHBORS),
      "farthest from all others, with the similarity of the nearest",
      best,
    );
  }

  showDuplicates() {
    if (!this.nearest) return this.wait();
    const { best, index } = this.nearest;
    const pairs = [...best.keys()]
      .filter((at) => index[index[at]] !== at || at < index[at])
      .sort((a, b) => best[b] - best[a])
      .slice(0, NEIGHBORS);
    this.scatter.mark(pairs.flatMap((at) => [at, index[at]]));
    fill(
      this.list,
      h("h2", {}, "Most similar texts"),
      h(
        "ol",
        {},
        pairs.map((at) =>
          h("li", {}, h("b", {}, best[at].toFixed(3)), clamped(this.texts[at]), clamped(this.texts[index[at]])),
        ),
      ),
    );
  }

  wait() {
    fill(this.list, notice("hint", "Still comparing all texts", "Try again in a moment."));
  }

  pick(at) {
    if (at < 0) {
      this.query.value = "";
      this.scatter.mark([]);
      fill(this.list);
    } else this.showNearest(this.vectors[at], `like “${this.texts[at].slice(0, 60)}”`);
  }

  async search() {
    if (!this.query.value.trim()) return this.pick(-1);
    try {
      const {
        vectors: [wanted],
      } = await embed(this.model.value, [this.query.value.trim()]);
      this.showNearest(wanted, `like “${this.query.value.trim().slice(0, 60)}”`);
    } catch (error) {
      fill(this.list, notice("error", "The texts can't be searched", error.message));
    }
  }

  showNearest(wanted, what) {
    const scores = this.vectors.map((vector) => cosine(wanted, vector));
    const found = [...scores.keys()].sort((a, b) => scores[b] - scores[a]).slice(0, NEIGHBORS);
    this.select(found, what, scores);
  }

  select(found, what, scores) {
    this.scatter.mark(found);
    fill(
      this.list,
      h("h2", {}, `${found.length.toLocaleString()} ${found.length === 1 ? "text" : "texts"} ${what}`),
      h(
        "ol",
        {},
        found
          .slice(0, 100)
          .map((at) => h("li", {}, scores ? h("b", {}, scores[at].toFixed(3)) : null, clamped(this.texts[at]))),
      ),
    );
  }

  async saveVectors() {
    const { columns } = this.table; // the vector joins the columns of its row
    const lines = (from) =>
      this.rows.slice(from, from + 50).map((row, at) => {
        const fields = Object.fromEntries(columns.map((name, column) => [name, row[column]]));
        return `${JSON.stringify({ ...fields, embedding: [...this.vectors[from + at]] })}\n`;
      });
    const starts = Array.from({ length: Math.ceil(this.rows.length / 50) }, (_, at) => at * 50);
    const parts = await inParts(starts, (from) => new Blob(lines(from)));
    save(new Blob(parts, { type: "application/jsonl" }), "vectors.jsonl");
  }

  /** Save the map as it is shown, with its background and, below it, the legend. */
  savePicture() {
    this.scatter.draw(); // what is scheduled
    const { width, height } = this.canvas,
      line = Math.round(28 * (devicePixelRatio || 1)),
      style = getComputedStyle(this.stage);
    const picture = h("canvas", { width, height: height + line * this.colors.size });
    const context = picture.getContext("2d");
    context.fillStyle = style.backgroundColor;
    context.fillRect(0, 0, picture.width, picture.height);
    context.drawImage(this.canvas, 0, 0);
    context.font = `${line / 2}px system-ui`;
    [...this.colors].forEach(([value, color], at) => {
      const y = height + line * at;
      context.fillStyle = color;
      context.fillRect(line / 2, y, line / 2, line / 2);
      context.fillStyle = style.color;
      context.fillText(value || "empty", line * 1.5, y + line * 0.45);
    });
    picture.toBlob((blob) => save(blob, "map.png"));
  }
}
