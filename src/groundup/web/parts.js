/** Which layers and heads changed the answer: every part, as a picture of where it looks. */

import { ink, whenColoursChange } from "./colours.js";
import { element, percent, section, spoken, step, word } from "./dom.js";
import { distribution } from "./sampling.js";

const THUMB = 32;

/** What a part is called. */
export function nameOf({ layer, part, head }) {
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
  const cells = data.changes.map((change, i) => cell(view, change, i, columns));
  const heads = [];
  for (let i = 1; i <= data.n_heads; i++) heads.push(element("span", { class: "top" }, `${i}`));
  for (const name of ["all", "ff"]) heads.push(element("span", { class: "top" }, name));
  const box = element("div", { class: "parts", role: "radiogroup", "aria-label": "parts of the model" });
  box.style.setProperty("--columns", columns);
  box.append(element("span", { class: "top left" }, "layer"), ...heads);
  cells.forEach(({ button }, i) => {
    if (i % columns === 0) box.append(element("span", { class: "left" }, `${data.changes[i].layer + 1}`));
    box.append(button);
  });
  let drawn = null;
  function thumbs() {
    drawn = data.attention;
    cells.forEach(({ canvas }, i) => canvas && thumbnail(view, canvas, data.changes[i]));
  }
  whenColoursChange(thumbs);
  view.follow(() => {
    if (drawn !== data.attention) thumbs();
    cells.forEach((made, i) => showCell(view, made, i));
  });
  return box;
}

function cell(view, change, i, columns) {
  const { changes } = view.data;
  const canvas = change.head === null ? null : element("canvas", { "aria-hidden": true });
  const bar = element("span", { class: "effect" });
  const face = canvas ?? element("span", { class: "letters", "aria-hidden": true }, change.part === "attention" ? "all" : "ff");
  const choose = (to) => {
    const { layer, head } = changes[to];
    view.choose({ part: to, layer, ...(head === null ? {} : { head }) });
  };
  const move = (event) => {
    const to = step(event.key, i, changes.length, columns);
    if (to === null) return;
    event.preventDefault();
    choose(to);
    event.currentTarget.parentElement.querySelectorAll(".part")[to].focus();
  };
  const button = element(
    "button",
    { type: "button", class: "part", role: "radio", click: () => choose(i), keydown: move },
    face,
    element("span", { class: "gauge" }, bar),
  );
  return { canvas, bar, button };
}

function showCell(view, { bar, button }, i) {
  const change = view.data.changes[i];
  const chosen = i === view.part;
  const silenced = view.live?.silenced.has(i) ?? false;
  button.setAttribute("aria-checked", chosen);
  button.tabIndex = chosen ? 0 : -1;
  button.classList.toggle("silenced", silenced);
  let told = `${nameOf(change)}: not yet known`;
  if (change.effect) {
    const effect = change.effect[view.token];
    bar.style.width = `${100 * Math.min(1, Math.abs(1 - Math.exp(effect)))}%`;
    bar.className = effect < 0 ? "effect" : "effect gains";
    const [before, after] = answerOf(view, change).map(percent);
    told = `${nameOf(change)}: without it the answer has ${after} instead of ${before}`;
  }
  button.title = silenced ? `${told} (silenced)` : told;
  button.setAttribute("aria-label", button.title);
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

/** What the model says with all of its parts. */
function intact(view) {
  return (view.live?.intact ?? view.data).next[view.token];
}

/** How likely the model's own answer is, with the part and without it. */
function answerOf(view, change) {
  const before = distribution(intact(view)).probabilities[0];
  return [before, before * Math.exp(change.effect[view.token])];
}

function without(view) {
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
    const change = view.data.changes[view.part];
    const several = view.live?.silenced.size ? view.live.told() : null;
    title.textContent = `Without ${several ?? nameOf(change)}`;
    const guesses = several ? likeliest(view.data.next[view.token]) : change.guesses?.[view.token];
    swatches.hidden = !guesses;
    if (guesses) compare(view, list, told, guesses, several ? null : answerOf(view, change)[1]);
    else {
      told.textContent = "It is being tried …";
      list.replaceChildren();
    }
  });
  return element("div", { class: "without" }, title, told, ...(view.live ? [view.live.switch(view)] : []), list, swatches);
}

/** The likeliest tokens with their probabilities. */
function likeliest(next) {
  const { probabilities } = distribution(next);
  return next.ids.map((id, i) => [id, probabilities[i]]);
}

/** Show what was likely with all parts beside what is likely then; `after`: the old answer's, if known. */
function compare(view, list, told, guesses, after) {
  const next = intact(view);
  const answer = next.ids[0];
  const now = distribution(next).probabilities;
  const then = new Map(guesses);
  const [instead] = guesses[0];
  const unlisted = guesses.at(-1)[1];
  if (after !== null) then.set(answer, after);
  const say = (p, below) => (p === undefined ? `<${percent(below).replace("<", "")}` : percent(p));
  const name = (id) => spoken(view.word(id));
  const numbers = `${say(then.get(answer), unlisted)} instead of ${percent(now[0])}`;
  told.textContent =
    instead === answer
      ? `The answer stays ${name(answer)}: ${numbers}.`
      : `The answer becomes ${name(instead)}; ${name(answer)} has ${numbers}.`;
  const ids = [...new Set([answer, ...guesses.slice(0, 5).map(([id]) => id)])];
  const pairs = ids.map((id) => [id, now[next.ids.indexOf(id)], then.get(id)]);
  const scale = Math.max(...pairs.map(([, old, young]) => Math.max(old ?? 0, young ?? 0)));
  list.replaceChildren(
    ...pairs.map(([id, old, young]) => {
      const [first, second] = ["fill", "fill hollow"].map((kind) => element("span", { class: kind }));
      first.style.width = `${(100 * (old ?? 0)) / scale}%`;
      second.style.width = `${(100 * (young ?? 0)) / scale}%`;
      return element(
        "li",
        { class: id === answer ? "mark" : "" },
        element("span", { class: "name" }, word(view.word(id))),
        element("span", { class: "track" }, first, second),
        element("span", { class: "number" }, `${say(old, now.at(-1))} → ${say(young, unlisted)}`),
      );
    }),
  );
}
