// The shell: navigation by the address' hash, the status line, light and dark.
import { models } from "./api.js";
import { fill, h, notice } from "./dom.js";

// hash → title, module
const PANES = {
  try: ["Compare", "./panes/compare.js"],
  rerank: ["Rerank", "./panes/rerank.js"],
  map: ["Map", "./panes/map.js"],
  connect: ["Connect", "./panes/connect.js"],
  models: ["Models", "./panes/models.js"],
  live: ["Live", "./panes/live.js"],
  docs: ["Docs", "./panes/docs.js"],
};

const main = document.querySelector("main");
const shown = new Map(); // hash → {element, resume, pause}
let current = null;
let latest = ""; // hash
let away = false; // whether the server didn't answer the last time

async function show(name, path) {
  const [title, module] = PANES[name];
  document.title = `${title} · nearfar`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${name}`) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "center" });
    } else link.removeAttribute("aria-current");
  }
  current?.pause?.();
  latest = name;
  const slow = setTimeout(() => name === latest && fill(main, h("p", { class: "lead" }, "Loading…")), 300);
  try {
    if (!shown.has(name)) shown.set(name, await (await import(module)).open());
    if (name !== latest) return; // another pane was chosen meanwhile
    current = shown.get(name);
    fill(main, current.element);
    current.resume?.(path);
  } catch (error) {
    if (name !== latest) return;
    const reason = error instanceof TypeError ? "The server isn't responding. Is it still running?" : error.message; // of import()
    fill(
      main,
      h("h1", {}, title),
      notice("error", "This page couldn't be loaded", reason, () =>
        error instanceof TypeError ? location.reload() : show(name, path),
      ),
    );
  } finally {
    clearTimeout(slow);
  }
}

function follow() {
  const [name, ...path] = location.hash.slice(2).split("/");
  if (name in PANES) show(name, path);
  else if (location.hash !== "#main") show("try");
}

async function watchModels() {
  const status = document.querySelector(".status");
  try {
    const found = await models();
    const loaded = found.filter((model) => model.state === "loaded").length;
    status.textContent = found.length ? `${loaded} of ${found.length} models loaded` : "Models are loading…";
    status.dataset.ok = loaded > 0;
    if (away) dispatchEvent(new Event("recovered"));
    away = false;
  } catch (error) {
    status.textContent = error.status ? "" : "Server not responding";
    status.dataset.ok = false;
    away = error.status === 0;
  }
  setTimeout(watchModels, document.hidden ? 30_000 : away ? 1_000 : 5_000);
}

function switchTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  document.documentElement.dataset.theme = theme === "dark" ? "light" : "dark";
}

fill(
  document.querySelector("nav"),
  Object.entries(PANES).map(([name, [title]]) => h("a", { href: `#/${name}` }, title)),
);
document.querySelector("button.theme").addEventListener("click", switchTheme);
addEventListener("hashchange", follow);
follow();
watchModels();
