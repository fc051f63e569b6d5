/** Rows of words with bars that move. */

import { element, word } from "./dom.js";

/**
 * A list of bars. `show(rows, scale)` draws rows of `{ text, value, label, note, mark, out, plain }`:
 * the bar is `value / scale` long; `mark` makes it stand out, `out` is what cannot be drawn.
 */
export function barList(label) {
  const list = element("ol", { class: "bars", "aria-label": label });
  const rows = [];
  function row() {
    const made = {
      name: element("span", { class: "name" }),
      fill: element("span", { class: "fill" }),
      number: element("span", { class: "number" }),
      note: element("span", { class: "tag" }),
    };
    const track = element("span", { class: "track" }, made.fill);
    made.line = element("li", {}, made.name, track, made.number, made.note);
    return made;
  }
  function show(told, scale = 1) {
    while (rows.length < told.length) rows.push(row());
    list.replaceChildren(...rows.slice(0, told.length).map((made) => made.line));
    told.forEach(({ text, value, label: number, note = "", mark = false, out = false, plain = false }, i) => {
      const made = rows[i];
      made.name.replaceChildren(plain ? text : word(text));
      made.fill.style.width = `${Math.min(100, (100 * value) / scale)}%`;
      made.number.textContent = number;
      made.note.textContent = note;
      made.line.className = `${mark ? "mark" : ""} ${out ? "out" : ""}`.trim();
    });
  }
  return { list, show };
}

/** The shortest round scale on which the largest value fits. */
export function scaleFor(value) {
  return [0.05, 0.1, 0.25, 0.5, 1].find((scale) => value <= scale) ?? 1;
}
