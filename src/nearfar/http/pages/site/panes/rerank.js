// Rerank: the documents in the order of a reranker, beside their first order and that of an embedding model.
import { call, embed, models, send } from "../api.js";
import { choice, clamped, command, debounced, field, fill, h, lines, notice } from "../dom.js";
import { cosine } from "../vectors.js";

const QUERY = "How long do I have to return a pair of shoes?";
const DOCUMENTS = [
  "Our stores are open from nine to six.",
  "Shoes should be cleaned with a soft brush.",
  "Unworn footwear may be sent back within 60 days of delivery.",
  "We refund the price within five business days after a return arrives.",
  "Gift cards can't be exchanged for cash.",
];
const MOST = 200; // documents
const RERANKER = "cross-encoder/ms-marco-MiniLM-L6-v2"; // a small one of the catalog: 91 MB, for English

export async function open() {
  const served = await models();
  const rankers = served.filter((model) => model.tasks.includes("rank"));
  const title = h("h1", {}, "Rerank documents");
  if (!rankers.length) {
    return {
      element: h(
        "section",
        {},
        title,
        notice(
          "empty",
          "No model that ranks is served",
          command(`nearfar serve ${RERANKER}`),
        ),
      ),
    };
  }
  rankers.sort((a, b) => Number(b.score_is_probability) - Number(a.score_is_probability)); // real rerankers first
  return {
    element: new Rerank(
      rankers,
      served.filter((model) => model.tasks.includes("embed")),
      title,
      served,
    ).element,
  };
}

class Rerank {
  constructor(rankers, embedders, title, served) {
    this.rankers = rankers;
    this.update = debounced((signal) => this.run(signal));
    this.query = h("input", { type: "text", dir: "auto", oninput: () => this.change(), value: QUERY });
    this.documents = h("textarea", {
      rows: 9,
      spellcheck: "false",
      dir: "auto",
      oninput: () => this.change(),
      value: DOCUMENTS.join("\n"),
    });
    this.embedders = embedders;
    this.model = choice(
      rankers.map(({ name }) => [name, name]),
      () => this.chooseModel(),
    );
    this.beside = choice([], () => this.change());
    this.besideField = field("Compare with", this.beside, null, "full");
    this.result = h("div", { class: "result", "aria-live": "polite" });
    this.element = h(
      "section",
      { class: "split" },
      h(
        "div",
        { class: "side" },
        title,
        h(
          "p",
          { class: "lead" },
          "A reranker reads the query and each document together, and sorts them by how well they answer it.",
        ),
        rankers[0].score_is_probability ? null : withoutReranker(served),
        field("Query", this.query),
        field(
          "Documents, one per line",
          this.documents,
          h("button", { type: "button", class: "quiet copy", onclick: () => this.empty() }, "Clear"),
        ),
        h(
          "div",
          { class: "fields" },
          field("Model", this.model, null, "full"),
          this.besideField,
        ),
      ),
      h("div", { class: "wide" }, this.result),
    );
    this.chooseModel();
  }

  chooseModel() {
    const others = this.embedders.filter(({ name }) => name !== this.model.value);
    fill(
      this.beside,
      h("option", { value: "" }, "the order as written"),
      others.map(({ name }) => h("option", { value: name }, name)),
    );
    this.besideField.hidden = !others.length;
    this.change(true);
  }

  change(atOnce) {
    this.result.setAttribute("aria-busy", "true");
    this.update(atOnce);
  }

  empty() {
    this.query.value = this.documents.value = "";
    this.query.focus();
    this.change(true);
  }

  async run(signal) {
    const query = this.query.value.trim(),
      documents = lines(this.documents.value).slice(0, MOST);
    if (!query || documents.length < 2) {
      fill(this.result, notice("empty", "Write a query and at least two documents", "Each line is one document."));
      this.result.removeAttribute("aria-busy");
      return;
    }
    try {
      const [response, first] = await Promise.all([
        send("v2/rerank", { body: { model: this.model.value, query, documents, top_n: documents.length }, signal }),
        this.beside.value ? byCosine(this.beside.value, query, documents, signal) : documents.map((_, at) => at),
      ]);
      const cut = Number(response.headers.get("x-nearfar-truncated-tokens") ?? 0);
      this.show(documents, (await response.json()).results, first, cut);
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(
        this.result,
        notice("error", "The documents can't be ranked", error.message, () => this.change(true)),
      );
    }
    this.result.removeAttribute("aria-busy");
  }

  show(documents, results, first, cut) {
    const model = this.rankers.find(({ name }) => name === this.model.value);
    const place = new Map(first.map((index, at) => [index, at]));
    fill(
      this.result,
      h("h2", {}, "Best first"),
      h(
        "ol",
        { class: "ranked" },
        results.map(({ index, relevance_score: score }, at) =>
          h(
            "li",
            {},
            h("p", {}, clamped(documents[index])),
            h("div", { class: "bar" }, h("span", { style: { width: `${Math.max(score, 0.004) * 100}%` } })),
            h("b", {}, score.toFixed(4)),
            moved(place.get(index), at),
            model.tasks.includes("multi_vector") ? matchesOf(model.name, this.query.value.trim(), documents[index]) : null,
          ),
        ),
      ),
      h(
        "p",
        { class: "about" },
        model.score_is_probability
          ? `The score is the reranker's own estimate of a probability: ${model.score}.`
          : `The score isn't a probability: it is ${model.score}. Only the order counts.`,
        ` “was” is the place ${this.beside.value ? `by ${this.beside.value}'s vectors` : "among the lines as written"}.`,
        cut
          ? h(
              "strong",
              { class: "warn" },
              ` ${cut} tokens were cut: this model reads ${model.max_tokens.toLocaleString()} tokens at once. `,
              h("a", { href: "#/docs/manual/api/input" }, "What to do"),
            )
          : null,
      ),
    );
  }
}

async function byCosine(model, query, documents, signal) {
  const {
    vectors: [wanted, ...others],
  } = await embed(model, [query, ...documents], {}, signal);
  const scores = others.map((vector) => cosine(wanted, vector));
  return documents.map((_, at) => at).sort((a, b) => scores[b] - scores[a]);
}

function moved(before, now) {
  const kind = before > now ? "up" : "down";
  if (before === now) return h("span", { class: "moved" }, "same place");
  return h(
    "span",
    { class: `moved ${kind}` },
    h("span", { "aria-hidden": "true" }, before > now ? "▲ " : "▼ "),
    h("span", { class: "sr" }, `${kind}, `),
    `was ${ordinal(before + 1)}`,
  );
}

function ordinal(number) {
  const end = { one: "st", two: "nd", few: "rd", other: "th" }[new Intl.PluralRules("en", { type: "ordinal" }).select(number)];
  return `${number}${end}`;
}

/** Return a notice of how to serve a reranker beside the models that are served. */
function withoutReranker(served) {
  const names = served.map(({ name, source }) => (source === "folder" ? `path/to/${name}` : name));
  const about = [
    "Without one, this model's vectors sort the documents. To add one, stop the server and start it with all models:",
    command(`nearfar serve ${names.join(" ")} ${RERANKER}`),
    "This small one reads English. It is downloaded once, 91 MB. ",
    h("a", { href: "#/docs/manual/models/embedding-models-and-rerankers" }, "What is a reranker?"),
  ];
  return h("div", {}, notice("hint", "No reranker is served", about));
}

/** Return the words of a query, each with the document's nearest word: computed once it is opened. */
function matchesOf(model, query, document_) {
  const list = h("ul", { class: "matches" });
  const work = async () => {
    try {
      const [asked, found] = await Promise.all([tokenVectors(model, query, "query"), tokenVectors(model, document_, "document")]);
      fill(
        list,
        asked.map(({ text, vector }) => {
          const scores = found.map((other) => cosine(vector, other.vector));
          const best = Math.max(...scores);
          return h(
            "li",
            { class: "row" },
            h("span", { class: "token", dir: "auto" }, text),
            h("span", { "aria-hidden": "true" }, "→"),
            h("span", { class: "token", dir: "auto" }, found[scores.indexOf(best)].text),
            h("b", {}, best.toFixed(2)),
          );
        }),
      );
    } catch (error) {
      fill(list, notice("error", "The words can't be matched", error.message, work));
    }
  };
  return h("details", { ontoggle: () => list.hasChildNodes() || work() }, h("summary", {}, "Matching words"), list);
}

/** Return {text, vector} of each token of a text that a multi-vector model scores. */
async function tokenVectors(model, input, role) {
  const { data } = await call("represent", { model, input, outputs: ["multi_vector"], input_type: role });
  const [{ multi_vector: vectors, token_ids: ids }] = data;
  const names = await call("decode", { model, ids: ids.map((id) => [id]), skip_special_tokens: false });
  return vectors.map((vector, at) => ({ vector, text: names[at] }));
}
