// A list of pairs of texts, nearest first.
import { fill, h } from "./dom.js";
import { standingOut } from "./vectors.js";

const SHOWN = 5; // at first: more if the largest gap is below
const MOST = 100;

/** Return the list of [i, j, similarity], sorted. `text(i)` returns an element. It has a line at the largest gap: that is a
 *  property of these texts, and no limit of the model's. `point([i, j])` is called for a pair that is pointed at. */
export function pairList(nearest, text, point = () => {}) {
  const above = standingOut(nearest);
  const list = h("ol", { class: "pairs", tabindex: 0 });
  const show = (count) => {
    const rows = nearest.slice(0, count).map(([i, j, value]) =>
      h(
        "li",
        { onpointerenter: () => point([i, j]), onpointerleave: () => point([]) },
        h("meter", { min: 0, max: 1, value: Math.max(value, 0), "aria-label": "similarity" }),
        h("b", {}, value.toFixed(3)),
        text(i),
        text(j),
      ),
    );
    const gap = above ? (nearest[above - 1][2] - nearest[above][2]).toFixed(2) : "";
    if (above) rows.splice(above, 0, h("li", { class: "gap" }, `The largest gap, ${gap}: pairs above it stand out among these texts.`));
    const most = Math.min(nearest.length, MOST);
    const all = `${most < nearest.length ? `${most} of` : "all"} ${nearest.length.toLocaleString()} pairs`;
    const more = h("button", { type: "button", class: "quiet copy", onclick: () => show(MOST) }, `Show ${all}`);
    fill(list, rows, count < most && h("li", { class: "gap" }, more));
  };
  show(Math.max(SHOWN, above + 1));
  return list;
}
