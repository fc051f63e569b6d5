/** What comes next: the distribution after the chosen token, and the sliders that bend it. */

import { barList, scaleFor } from "./bars.js";
import { element, percent, section } from "./dom.js";
import { distribution } from "./sampling.js";
import { sliderBox } from "./sliders.js";

const SHOWN = 12;
const SLIDERS = [
  { name: "temperature", label: "temperature", min: 0, max: 2, step: 0.1, start: 1, told: (x) => (x === 0 ? "0: always the likeliest" : x.toFixed(1)) },
  { name: "topK", label: "top-k", min: 1, max: 51, step: 1, start: 51, told: (x) => (x === 51 ? "off" : `${x}`) },
  { name: "topP", label: "top-p", min: 0.05, max: 1, step: 0.05, start: 1, told: (x) => (x === 1 ? "off" : x.toFixed(2)) },
];

export function nextSection(view) {
  const { data } = view;
  const bars = barList("likeliest next tokens");
  const axis = element("p", { class: "axis", "aria-hidden": true }, element("span", {}, "0"), element("span"));
  const sliders = sliderBox(SLIDERS, draw);

  function settings() {
    const { temperature, topK, topP } = sliders.values();
    return { temperature, topK: topK === 51 ? null : topK, topP };
  }
  function draw() {
    const next = data.next[view.token];
    const { probabilities, rest } = distribution(next, settings());
    const follows = data.tokens[view.token + 1];
    const rows = next.ids.map((id, i) => ({
      text: view.word(id),
      value: probabilities[i],
      label: percent(probabilities[i]),
      out: probabilities[i] === 0,
      mark: follows?.id === id,
      note: follows?.id === id ? "◂ the text" : "",
    }));
    const shown = rows.slice(0, SHOWN);
    const real = rows.findIndex((row) => row.mark);
    if (real >= SHOWN) shown.push({ ...rows[real], note: `◂ the text, choice ${real + 1}` });
    const listed = shown.reduce((sum, row) => sum + row.value, 0);
    const others = data.vocab_size - shown.length;
    const left = Math.max(0, probabilities.reduce((sum, p) => sum + p, rest) - listed);
    if (others > 0) {
      const text = `${others.toLocaleString("en")} others`;
      shown.push({ text, plain: true, value: 0, label: percent(left), out: left < 1e-9 }); // no bar: it is no token
    }
    if (follows && real < 0) {
      const note = `◂ the text, choice ${follows.rank.toLocaleString("en")}, among the others`;
      shown.push({ text: view.word(follows.id), value: 0, label: "", note, mark: true });
    }
    const scale = scaleFor(Math.max(...shown.map((row) => row.value)));
    axis.lastChild.textContent = percent(scale);
    bars.show(shown, scale);
  }
  view.follow(draw);
  return section(
    "What comes next?",
    "The model gives every token that it knows a probability. Temperature sharpens or flattens them, " +
      "top-k keeps the best few, top-p the fewest that have so much together; then one is drawn.",
    sliders.box,
    axis,
    bars.list,
  );
}
