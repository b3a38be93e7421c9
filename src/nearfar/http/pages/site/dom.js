// Builds elements. Text is always added as text, never parsed as HTML.

/** Return an element: `on…` properties are listeners, `dataset` and `style` are copied, the others are attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(isShown));
  return element;
}

/** Return a labeled control, with an explanation or a button below. */
export function field(label, control, about, kind = "") {
  const id = `field-${(field.count = (field.count ?? 0) + 1)}`;
  control.id = id;
  if (about && !about.tagName) control.setAttribute("aria-describedby", `${id}-about`);
  return h(
    "div",
    { class: `field ${kind}` },
    h("label", { for: id }, label),
    control,
    about?.tagName ? about : about && h("small", { id: `${id}-about` }, about),
  );
}

/** Return a <select> of [value, text] pairs; one that has no choice is shown as text. */
export function choice(pairs, onchange) {
  return h(
    "select",
    { onchange, disabled: pairs.length === 1 },
    pairs.map(([value, text]) => h("option", { value }, text)),
  );
}

/** Replace the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter(isShown));
}

/** Return whether a child is more than the result of a condition. */
function isShown(child) {
  return child !== null && child !== undefined && child !== false;
}

/** Return a notice, with a button if it can be tried again: kind is "error", "empty" or "hint".
 *  It is tried again once the server answers after it didn't, too. */
export function notice(kind, title, text, retry, action = "Try again") {
  const element = h(
    "div",
    { class: `notice ${kind}`, role: kind === "error" ? "alert" : null },
    h("strong", {}, title),
    text && h("p", {}, text),
    retry && h("p", { class: "row" }, h("button", { type: "button", class: "quiet", onclick: retry }, action)),
  );
  if (retry && kind === "error") addEventListener("recovered", () => element.isConnected && retry(), { once: true });
  return element;
}

/** Return a text that shows its first lines, and all of it on a click. */
export function clamped(text) {
  const shown = h(
    "span",
    {
      class: "clamped",
      dir: "auto",
      title: text.length > 120 ? "Click to show all of it" : null,
      onclick: () => shown.classList.toggle("clamped"),
    },
    text,
  );
  return shown;
}

/** Return a button that copies what `text()` returns. */
export function copyButton(text) {
  const button = h(
    "button",
    {
      class: "quiet copy",
      type: "button",
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(text());
          button.textContent = "Copied";
        } catch {
          button.textContent = "Select and copy by hand";
        }
        setTimeout(() => {
          button.textContent = "Copy";
        }, 1500);
      },
    },
    "Copy",
  );
  return button;
}

/** Return a command to run, with a button that copies it. */
export function command(text) {
  return h("span", { class: "row" }, h("code", {}, text), copyButton(() => text));
}

/** Return a function that runs `work(signal)` once calls have paused for `ms`; a later call aborts the former. */
export function debounced(work, ms = 350) {
  let timer = 0;
  let controller = null;
  return (atOnce = false) => {
    clearTimeout(timer);
    controller?.abort();
    controller = new AbortController();
    const { signal } = controller;
    timer = setTimeout(() => work(signal), atOnce === true ? 0 : ms);
  };
}

/** Return the lines of a text that aren't blank. */
export function lines(text) {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
}

/** Return `work(item, at)` of each item. Other tasks of the page run in between. */
export async function inParts(items, work) {
  const results = [];
  let began = performance.now();
  for (const [at, item] of items.entries()) {
    if (performance.now() - began > 8) {
      await new Promise((resolve) => setTimeout(resolve));
      began = performance.now();
    }
    results.push(work(item, at));
  }
  return results;
}

/** Load a script that defines globals, once. */
export function loadScript(source) {
  if (document.querySelector(`script[src="${source}"]`)) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const script = h("script", {
      src: source,
      onload: resolve,
      onerror: () => {
        script.remove();
        reject(new Error("A part of the page can't be loaded."));
      },
    });
    document.head.append(script);
  });
}

/** Load a style sheet, so that nothing is shown without it. */
export function loadStyle(href) {
  return new Promise((resolve) => {
    document.head.append(h("link", { rel: "stylesheet", href, onload: resolve, onerror: resolve }));
  });
}

/** Save a Blob as a file of the user's. */
export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
