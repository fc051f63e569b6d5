/** Which layers and heads changed the answer: every part, as a picture of where it looks. */

import { ink, whenColoursChange } from "./attention.js";
import { element, percent, section, spoken, step, word } from "./dom.js";
import { distribution } from "./sampling.js";

const THUMB = 32;

/** What a part is called. */
function nameOf({ layer, part, head }) {
  const what = { head: `head ${head + 1}`, attention: "attention", feed_forward: "the feed-forward network" };
  return `${what[part]} of layer ${layer + 1}`;
}

export function partsSection(view) {
  return section(
    "Which parts made the answer?",
    "Each picture is a head: where it looks, for the whole text. The bar below it says how much of the " +
      "answer's probability is lost, at the chosen token, when that part is silenced; a hollow bar, how " +
      "much is gained. Choose one to see what the model would say without it.",
    element("div", { class: "two" }, element("div", {}, grid(view), key()), without(view)),
  );
}

function grid(view) {
  const { data } = view;
  const columns = data.n_heads + 2;
  const cells = data.changes.map((change, i) => {
    const canvas = change.head === null ? null : element("canvas", { "aria-hidden": true });
    const bar = element("span", { class: "effect" });
    const face = canvas ?? element("span", { class: "letters", "aria-hidden": true }, change.part === "attention" ? "all" : "ff");
    const button = element(
      "button",
      { type: "button", class: "part", role: "radio", click: () => choose(i), keydown: (event) => move(event, i) },
      face,
      element("span", { class: "gauge" }, bar),
    );
    return { change, canvas, bar, button };
  });
  function choose(i) {
    const { layer, head } = data.changes[i];
    view.choose({ part: i, layer, ...(head === null ? {} : { head }) });
  }
  function move(event, i) {
    const to = step(event.key, i, cells.length, columns);
    if (to === null) return;
    event.preventDefault();
    choose(to);
    cells[to].button.focus();
  }
  const heads = [];
  for (let i = 1; i <= data.n_heads; i++) heads.push(element("span", { class: "top" }, `${i}`));
  for (const name of ["all", "ff"]) heads.push(element("span", { class: "top" }, name));
  const box = element("div", { class: "parts", role: "radiogroup", "aria-label": "parts of the model" });
  box.style.setProperty("--columns", columns);
  box.append(element("span", { class: "top left" }, "layer"), ...heads);
  cells.forEach(({ change, button }, i) => {
    if (i % columns === 0) box.append(element("span", { class: "left" }, `${change.layer + 1}`));
    box.append(button);
  });

  function thumbs() {
    for (const { change, canvas } of cells) if (canvas) thumbnail(view, canvas, change);
  }
  thumbs();
  whenColoursChange(thumbs);
  view.follow(() => {
    cells.forEach(({ change, bar, button }, i) => {
      const effect = change.effect[view.token];
      bar.style.width = `${100 * Math.min(1, Math.abs(1 - Math.exp(effect)))}%`;
      bar.className = effect < 0 ? "effect" : "effect gains";
      const chosen = i === view.part;
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
      const [before, after] = answerOf(view, change);
      button.setAttribute("aria-label", `${nameOf(change)}: without it ${percent(after)} instead of ${percent(before)}`);
      button.title = `${nameOf(change)}: without it the answer has ${percent(after)} instead of ${percent(before)}`;
    });
  });
  return box;
}

function key() {
  const told = "all: the layer's attention as a whole; ff: its feed-forward network";
  return element("p", { class: "key quiet" }, told);
}

function thumbnail({ data, weight }, canvas, { layer, head }) {
  const count = data.tokens.length;
  const side = Math.min(THUMB, count);
  canvas.width = canvas.height = side;
  const brush = canvas.getContext("2d");
  const picture = brush.createImageData(side, side);
  const most = new Float32Array(side * side);
  for (let row = 0; row < count; row++) {
    for (let column = 0; column <= row; column++) {
      const place = Math.floor((row * side) / count) * side + Math.floor((column * side) / count);
      most[place] = Math.max(most[place], weight(layer, head, row, column));
    }
  }
  most.forEach((w, i) => picture.data.set([...ink(), 255 * Math.sqrt(w)], 4 * i));
  brush.putImageData(picture, 0, 0);
}

/** How likely the model's own answer is, with the part and without it. */
function answerOf(view, change) {
  const before = distribution(view.data.next[view.token]).probabilities[0];
  return [before, before * Math.exp(change.effect[view.token])];
}

function without(view) {
  const { data } = view;
  const title = element("h3");
  const told = element("p", { class: "told", "aria-live": "polite" });
  const list = element("ol", { class: "bars pairs", "aria-label": "with the part, and without it" });
  const swatches = element(
    "p",
    { class: "key quiet" },
    element("span", { class: "swatch" }),
    "with it ",
    element("span", { class: "swatch hollow" }),
    "without it",
  );
  view.follow(() => {
    const change = data.changes[view.part];
    const next = data.next[view.token];
    const answer = next.ids[0];
    const now = distribution(next).probabilities;
    const [before, after] = answerOf(view, change);
    const then = new Map(change.guesses[view.token]);
    then.set(answer, after);
    const [instead] = change.guesses[view.token][0];
    title.textContent = `Without ${nameOf(change)}`;
    const name = (id) => spoken(view.word(id));
    told.textContent =
      instead === answer
        ? `The answer stays ${name(answer)}: ${percent(after)} instead of ${percent(before)}.`
        : `The answer becomes ${name(instead)}; ${name(answer)} has ${percent(after)} instead of ${percent(before)}.`;
    const ids = [...new Set([answer, ...then.keys()])];
    const scale = Math.max(...ids.map((id) => Math.max(then.get(id), now[next.ids.indexOf(id)] ?? 0)));
    list.replaceChildren(
      ...ids.map((id) => {
        const listed = now[next.ids.indexOf(id)];
        const [old, young] = [listed ?? 0, then.get(id)];
        const was = listed === undefined ? `<${percent(now.at(-1)).replace("<", "")}` : percent(old);
        const [first, second] = ["fill", "fill hollow"].map((kind) => element("span", { class: kind }));
        first.style.width = `${(100 * old) / scale}%`;
        second.style.width = `${(100 * young) / scale}%`;
        return element(
          "li",
          { class: id === answer ? "mark" : "" },
          element("span", { class: "name" }, word(view.word(id))),
          element("span", { class: "track" }, first, second),
          element("span", { class: "number" }, `${was} → ${percent(young)}`),
        );
      }),
    );
  });
  return element("div", { class: "without" }, title, told, list, swatches);
}
