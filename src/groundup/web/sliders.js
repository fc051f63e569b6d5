/** Sliders with a name and a value in words. */

import { element } from "./dom.js";

/**
 * A box of sliders `{ name, label, min, max, step, start, told }`: `told` says a value in words.
 * `values()` gives what they say by name; `changed` is called when one moves; `prefix` keeps the
 * ids of several boxes apart.
 */
export function sliderBox(sliders, changed, { prefix = "", reset = "as trained" } = {}) {
  const rows = sliders.map((slider) => {
    const { name, min, max, step, start } = slider;
    const id = `${prefix}${name}`;
    const output = element("output", { for: id });
    const input = element("input", { type: "range", id, min, max, step, value: start, input: moved });
    const row = element("div", { class: "slider" }, element("label", { for: id }, slider.label), input, output);
    return { ...slider, input, output, row };
  });
  function tell() {
    for (const { input, output, told } of rows) {
      const words = told(Number(input.value));
      output.textContent = words;
      input.setAttribute("aria-valuetext", words);
    }
  }
  function moved() {
    tell();
    changed();
  }
  function values() {
    return Object.fromEntries(rows.map(({ name, input }) => [name, Number(input.value)]));
  }
  function set(found) {
    for (const { name, input } of rows) if (name in found) input.value = found[name];
    moved();
  }
  const starts = Object.fromEntries(rows.map(({ name, start }) => [name, start]));
  const back = element("button", { type: "button", class: "plain", click: () => set(starts) }, reset);
  tell();
  return { box: element("div", { class: "sliders" }, ...rows.map((each) => each.row), back), values, set };
}
