// Compare: how similar the user's own texts are, which are nearest, and what each becomes as tokens.
import { call, embed, models } from "../api.js";
import { choice, clamped, debounced, field, fill, h, lines, notice } from "../dom.js";
import { loss, pairs, similarities, unpackBits } from "../vectors.js";

const EXAMPLE = [
  "How do I reset my password?",
  "I can't log in because I forgot my passphrase.",
  "Where is my package?",
  "Wo bleibt mein Paket?",
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
      element: h("section", {}, title, notice(
        "empty",
        "No embedding model is served",
        "Serve one, for example: nearfar serve intfloat/multilingual-e5-small",
      )),
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
      oninput: this.update,
      value: EXAMPLE.join("\n"),
    });
    this.model = choice(served.map(({ name }) => [name, name]), () => this.chooseModel());
    this.prompt = choice([], this.update);
    this.dimensions = choice([], this.update);
    this.output = choice([["float", "float32"], ["int8", "int8"], ["binary", "binary (1 bit)"]], this.update);
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
        h("p", { class: "lead" }, "Close to 1 means that two texts have a similar meaning to the model."),
        field("Texts, one per line", this.texts),
        h(
          "div",
          { class: "fields" },
          field("Model", this.model, null, "full"),
          this.promptField,
          field("Dimensions", this.dimensions),
          field("Number format", this.output),
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
    this.update(true);
  }

  async run(signal) {
    const texts = lines(this.texts.value).slice(0, MOST);
    this.result.setAttribute("aria-busy", "true");
    if (texts.length < 2) {
      fill(this.tokens);
      fill(
        this.result,
        notice("empty", "Write at least two texts", "Each line is one text. They never leave this machine."),
      );
      return;
    }
    try {
      const name = this.prompt.value ? `${this.info.name}:${this.prompt.value}` : this.info.name;
      const dimensions = Number(this.dimensions.value) || undefined;
      const [exact, numbers, tokens] = await Promise.all([
        embed(name, texts, { dimensions }, signal),
        this.output.value === "float" ? null : quantized(name, texts, this.output.value, dimensions, signal),
        call("tokenize", { model: this.info.name, inputs: texts }, signal),
      ]);
      const matrix = similarities(exact.vectors);
      this.show(texts, numbers ? similarities(numbers) : matrix, numbers && loss(matrix, similarities(numbers)), exact);
      this.showTokens(texts, tokens);
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(this.tokens);
      fill(this.result, notice("error", "The texts can't be compared", error.message, () => this.update(true)));
    }
    this.result.removeAttribute("aria-busy");
  }

  show(texts, matrix, lost, exact) {
    const nearest = pairs(matrix);
    const lowest = Math.min(nearest.at(-1)[2], 0.999);
    const bytes = { float: 4, int8: 1, binary: 1 / 8 }[this.output.value] * exact.vectors[0].length;
    fill(
      this.result,
      h("h2", {}, "Similarities"),
      h(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": "Matrix of similarities" },
        heatMap(texts, matrix, lowest),
      ),
      h(
        "p",
        { class: "about" },
        `${exact.tokens} tokens, ${bytes.toLocaleString()} bytes per text. The strongest color is 1, the weakest ${lowest.toFixed(2)}.`,
        exact.cut
          ? h(
              "a",
              { class: "warn", href: "#tokens", onclick: (event) => this.showCut(event) },
              ` ${exact.cut} tokens were cut: show where.`,
            )
          : null,
        lost
          ? ` Against float32, similarities differ by at most ${lost.largest.toFixed(4)}, and ${(100 * lost.kept).toFixed(1)}% of all pairs keep their order.`
          : null,
      ),
      h("h2", {}, "Nearest pairs"),
      h(
        "ol",
        { class: "pairs" },
        nearest
          .slice(0, 10)
          .map(([i, j, value]) =>
            h(
              "li",
              {},
              h("meter", { min: 0, max: 1, value: Math.max(value, 0), "aria-label": "similarity" }),
              h("b", {}, value.toFixed(3)),
              clamped(texts[i]),
              clamped(texts[j]),
            ),
          ),
      ),
    );
  }

  showCut(event) {
    event.preventDefault();
    this.tokens.querySelector(".cut").scrollIntoView({ block: "center" });
  }

  showTokens(texts, tokens) {
    fill(
      this.tokens,
      h(
        "details",
        { open: tokens.some((each) => each.length > this.info.max_tokens) },
        h("summary", {}, `Tokens, as the model reads them (at most ${this.info.max_tokens.toLocaleString()} per text)`),
        h("ol", {}, tokens.map((each, at) => h("li", {}, tokenRow(texts[at], each, this.info.max_tokens)))),
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
  const label = (text, at) => [h("span", { class: "number" }, at + 1), h("span", { class: "text", dir: "auto" }, text)];
  const title = (i, j) => `${matrix[i][j].toFixed(4)}\n${texts[i]}\n${texts[j]}`;
  const shades = matrix.map((row) => row.map((value) => Math.min(Math.max((value - lowest) / (1 - lowest), 0), 1)));
  return h(
    "table",
    { class: withValues ? "heat" : "heat small" },
    h("thead", {}, h("tr", {}, h("td"), texts.map((text, at) => h("th", { scope: "col", title: text }, at + 1)))),
    h(
      "tbody",
      {},
      matrix.map((row, i) =>
        h(
          "tr",
          {},
          h("th", { scope: "row", title: texts[i] }, label(texts[i], i)),
          withValues
            ? row.map((value, j) => heatCell(value, shades[i][j], title(i, j)))
            : heatStrip(row, shades[i], (j) => title(i, j)),
        ),
      ),
    ),
  );
}

function heatCell(value, shade, title) {
  const tone = shade > 0.9 ? "full" : shade > 0.55 ? "strong" : null;
  return h(
    "td",
    { class: tone, title, style: { "--shade": percent(shade) } },
    value.toFixed(2).replace(/^(-?)0\./, "$1."),
  );
}

/** Return a row of many cells as one element with a gradient: thousands of elements take too long to lay out. */
function heatStrip(row, shades, title) {
  const stops = shades.map(
    (shade, at) =>
      `color-mix(in oklab, var(--heat) ${percent(shade)}, var(--surface)) ${percent(at / row.length)} ${percent((at + 1) / row.length)}`,
  );
  return h(
    "td",
    {
      colspan: row.length,
      style: { background: `linear-gradient(to right, ${stops.join()})` },
      onmousemove: ({ currentTarget: cell, offsetX }) => {
        const at = Math.floor((offsetX / cell.clientWidth) * row.length);
        cell.title = title(Math.min(Math.max(at, 0), row.length - 1));
      },
    },
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
  return [
    h("p", { dir: "auto" }, parts, tokens.length > shown.length ? " …" : null),
    h(
      "small",
      { class: lost ? "warn" : null },
      lost ? `${tokens.length} tokens: ${lost} at the end don't reach the model` : `${tokens.length} tokens`,
    ),
  ];
}
