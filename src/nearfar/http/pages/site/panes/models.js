// Models: what is served, whether it is loaded, and buttons to load and unload.
import { call, models } from "../api.js";
import { command, fill, h, notice } from "../dom.js";

export async function open() {
  const list = h("div", { class: "cards" });
  const failure = h("div");
  let timer = 0;

  async function refresh() {
    clearTimeout(timer);
    try {
      const found = await models();
      fill(
        list,
        found.length
          ? found.map((model) => card(model, act))
          : notice("empty", "Models are loading", "Their files are being read."),
      );
    } catch (error) {
      fill(list, notice("error", "The models can't be listed", error.message));
    }
    timer = setTimeout(refresh, 5_000);
  }

  async function act(action, name) {
    fill(failure);
    try {
      await call(`admin/models/${action}`, { model: name });
    } catch (error) {
      fill(failure, notice("error", `${name} can't be ${action}ed`, error.message));
    }
    await refresh();
  }

  async function listDisk() {
    try {
      const { models: found } = await call("admin/models");
      fill(disk, h("h2", {}, "On this disk"), h("ul", { class: "disk" }, found.map(onDisk)));
    } catch (error) {
      fill(disk, h("h2", {}, "On this disk"), notice("hint", "Not shown", error.message));
    }
  }

  const disk = h("div");
  return {
    element: h("section", {}, h("h1", {}, "Models"), failure, list, disk),
    resume: () => Promise.all([refresh(), listDisk()]),
    pause: () => clearTimeout(timer),
  };
}

function card(model, act) {
  const loaded = model.state === "loaded";
  const facts = [
    ["Tasks", model.tasks.join(", ").replaceAll("_", "-")],
    ["Scores", model.tasks.includes("rank") && (model.score_is_probability ? "probabilities of a reranker" : model.score)],
    ["Runs on", `${model.engine}, ${model.device}, ${model.dtype}`],
    ["Why this precision", model.dtype_reason],
    ["Verified", model.verified?.replace(/^verified /, "")],
    ["Dimensions", model.dim || null],
    ["Text length", `${model.max_tokens.toLocaleString()} tokens`],
    ["Pooling", model.pooling && `${model.pooling} (${model.pooling_source})`],
    ["Prompts", Object.keys(model.prompts).join(", ")],
    ["Labels", model.labels.join(", ")],
    ["Architecture", `${model.architecture}, ${short(model.parameters)} parameters`],
    ["Weights", `${size(model.bytes)} in memory, ${size(model.file_bytes)} on disk`],
    ["Also named", model.aliases.join(", ")],
    ["Source", model.source],
  ];
  return h(
    "article",
    { class: "card" },
    h("h2", {}, model.name),
    h("p", { class: `badge ${model.state}` }, model.state),
    h(
      "dl",
      {},
      facts
        .filter(([, value]) => value)
        .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])
        .flat(),
    ),
    h(
      "p",
      { class: "row end" },
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          disabled: !loaded && model.state !== "unloaded",
          onclick: () => act(loaded ? "unload" : "load", model.name),
        },
        loaded ? "Unload" : "Load",
      ),
    ),
  );
}

function onDisk({ name, about, can_be_served: served, bytes }) {
  return h(
    "li",
    {},
    h("strong", {}, name),
    h(
      "span",
      { class: served ? "about" : "about warn" },
      [bytes === null ? null : size(bytes), about].filter(Boolean).join(", "),
    ),
    served && command(`nearfar serve ${/^[\w@./-]+$/.test(name) ? name : `'${name}'`}`),
  );
}

const size = (bytes) => `${short(bytes)}B`;

/** Return a number in thousands (k), millions (M) or billions (G). */
function short(number) {
  const unit = ["", "k", "M", "G"][Math.min(Math.floor(Math.log10(Math.max(number, 1)) / 3), 3)];
  const value = number / { "": 1, k: 1e3, M: 1e6, G: 1e9 }[unit];
  return `${value >= 100 ? Math.round(value) : Number(value.toFixed(1))} ${unit}`;
}
