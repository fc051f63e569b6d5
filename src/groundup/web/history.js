/** A model through time: the same text, token and head, read by each snapshot of a run. */

import { attentionSection, unpacked } from "./attention.js";
import { barList, scaleFor } from "./bars.js";
import { chart } from "./chart.js";
import { element, percent, section, spoken, word } from "./dom.js";
import { bestHead, copying, repeated, standing, surprise, viewOf } from "./moments.js";
import { distribution } from "./sampling.js";
import { tokensSection } from "./tokens.js";

const SHOWN = 10;
const PACE = 700; // milliseconds per step of the animation
const AGAIN = " alpha beta gamma alpha beta gamma alpha beta gamma";

/** The section; `show` tells of the snapshots that there are, `forget` that they are others now. */
export function throughTime(context, model) {
  const text = element("textarea", { id: "time-text", rows: 2, maxlength: 2000, required: true });
  const problem = element("p", { class: "problem", role: "alert", hidden: true });
  const stage = element("div");
  const form = element("form", { class: "asking", hidden: true, submit: (event) => {
    event.preventDefault();
    state.begin(text.value);
  } },
    element("label", { for: "time-text" }, "the text that every snapshot reads"),
    text,
    element("div", { class: "row start" },
      element("button", { type: "submit", class: "plain" }, "Read it"),
      example("as its samples begin", () => state.prompt || "The"),
      example("something that repeats itself", () => AGAIN)),
    problem);
  const about = "The same text, read by the model as it was after each of these steps. Move the slider, or let it run; choose a token to follow, or a head.";
  const without = element("p", { class: "note", hidden: true }, "This run keeps no snapshots. With --keep-history 10 a training keeps ten small ones, and this page shows them.");
  const part = section("Through time", about, without, form, stage);
  const state = { context, model, problem, stage, steps: [], text: "", prompt: "", cache: new Map(), turn: 0, picked: null, show: () => {}, stop: () => {} };
  state.begin = (said) => beginText(state, said);
  function example(name, of) {
    return element("button", { type: "button", class: "plain", click: () => {
      text.value = of();
      state.begin(text.value);
    } }, name);
  }
  return {
    part,
    stop: () => {
      state.turn++;
      state.stop();
    },
    forget: () => state.cache.clear(),
    show(history, prompt) {
      const able = model.kind === "language model";
      part.hidden = !able;
      without.hidden = history.length > 0;
      form.hidden = stage.hidden = !history.length;
      state.prompt = prompt ?? "";
      const same = history.join() === state.steps.join();
      if (!able || !history.length || same) return;
      state.steps = history;
      if (!state.text) {
        text.value ||= state.prompt || "The";
        state.begin(text.value);
      } else if (!state.busy) {
        loadAll(state);
      }
    },
  };
}

/** Read another text: the newest snapshot first, which says what there is to follow. */
async function beginText(state, text) {
  state.stop();
  Object.assign(state, { text, picked: null, cache: new Map(), busy: true });
  const turn = ++state.turn;
  state.stage.classList.add("waiting");
  const last = await load(state, state.steps.at(-1), turn);
  if (turn !== state.turn) return;
  state.busy = false;
  state.stage.classList.remove("waiting");
  if (!last) return;
  state.picked = last.next.at(-1).ids[0];
  state.cache.clear(); // it has not said yet where that token stands
  buildStage(state, last);
  await loadAll(state);
}

/** Ask every snapshot that was not asked yet, the chosen one first. */
async function loadAll(state) {
  const turn = ++state.turn;
  state.show();
  const order = [state.step, ...[...state.steps].reverse()].filter((step) => state.steps.includes(step));
  for (const step of order) {
    if (state.cache.has(step)) continue;
    if (!(await load(state, step, turn)) || turn !== state.turn) return;
    state.show();
  }
}

async function load(state, step, turn) {
  const watch = state.picked === null ? [] : [state.picked];
  try {
    const found = await state.context.fetch("page/run/at", { model: state.model.name, step, text: state.text, watch });
    if (turn !== state.turn) return null;
    found.weight = unpacked(found);
    state.cache.set(step, found);
    state.problem.hidden = true;
    return found;
  } catch (error) {
    if (turn !== state.turn) return null;
    state.problem.textContent = error.message;
    state.problem.hidden = false;
    return null;
  }
}

/** Build what shows one snapshot, and the charts over all of them. */
function buildStage(state, first) {
  const view = viewOf(first);
  state.view = view;
  state.step = first.step;
  state.own = false; // whether the followed token was picked by hand
  const clock = clockOf(state);
  const over = chartsOf(state);
  const next = nextOf(state);
  const heads = headsOf(state, first);
  state.show = () => {
    const found = state.cache.get(state.step);
    clock.show(found);
    if (found) {
      Object.assign(view.data, found);
      view.weight = found.weight;
      view.redraw();
    }
    over.show();
  };
  view.chosen = () => over.show();
  view.follow(() => {
    next.show();
    heads.show();
    clock.show(state.cache.get(state.step));
  });
  state.stage.replaceChildren(
    clock.box,
    tokensSection(view),
    element("div", { class: "charts" }, ...over.boxes),
    next.part,
    heads.box,
    attentionSection(view),
  );
  view.redraw();
}

/** The slider over the snapshots, and what they say of the token that is followed. */
function clockOf(state) {
  const input = element("input", { type: "range", min: 0, step: 1, "aria-label": "step of the training", input: () => {
    pause();
    go(Number(input.value));
  } });
  const output = element("output");
  const told = element("p", { class: "quiet", "aria-live": "polite" });
  const button = element("button", { type: "button", class: "plain", click: () => (timer ? pause() : play()) }, "▶ play");
  const box = element("div", { class: "clock" }, button, input, output, told);
  let timer = null;
  function go(at) {
    state.step = state.steps[at];
    state.show();
    if (!state.cache.has(state.step)) loadAll(state);
  }
  function play() {
    let at = state.steps.indexOf(state.step);
    if (at === state.steps.length - 1) at = -1;
    button.textContent = "❚❚ pause";
    timer = setInterval(() => {
      at++;
      go(at);
      if (at >= state.steps.length - 1) pause();
    }, PACE);
  }
  function pause() {
    clearInterval(timer);
    timer = null;
    button.textContent = "▶ play";
  }
  state.stop = pause;
  state.go = (step) => {
    pause();
    go(state.steps.indexOf(step));
  };
  return {
    box,
    show(found) {
      if (!state.steps.includes(state.step)) state.step = state.steps.at(-1);
      input.max = state.steps.length - 1;
      input.value = state.steps.indexOf(state.step);
      output.textContent = `step ${state.step.toLocaleString("en")}`;
      input.setAttribute("aria-valuetext", output.textContent);
      state.stage.classList.toggle("waiting", !found);
      if (!found) return;
      const { id, rank, p } = standing(state, found);
      if (rank === null) return;
      const name = (of) => word(state.view.word(of) ?? "");
      told.replaceChildren("After ", name(state.view.data.tokens[state.view.token].id), ", ", name(id), ` is choice ${rank.toLocaleString("en")} of ${found.vocab_size.toLocaleString("en")} (${percent(p)})`);
    },
  };
}

function chartsOf(state) {
  const how = { logX: true, height: 170, choose: (step) => state.go(step) };
  const chance = chart({ title: "How likely the followed token is", from: 0, told: percent, ...how });
  const loss = chart({ title: "Surprise per token of this text", from: 0, told: (y) => y.toFixed(2), ...how });
  const copies = chart({ title: "Looking for what came after the same token before", from: 0, told: percent, ...how });
  function show() {
    const found = state.steps.map((step) => state.cache.get(step)).filter(Boolean);
    const { id } = standing(state, found.at(-1) ?? state.view.data);
    const points = (of) => found.map((each) => [each.step, of(each)]).filter(([, y]) => y !== null);
    const name = `${spoken(state.view.word(id) ?? "")}`;
    chance.show([{ name, points: points((each) => standing(state, each).p), kind: 0 }], state.step);
    loss.show([{ name: "all of it", points: points(surprise), kind: 0 }], state.step);
    const repeats = repeated(state.view.data.tokens);
    copies.box.hidden = repeats.length < 2;
    if (copies.box.hidden) return;
    const best = bestHead(found.at(-1) ?? state.view.data);
    const of = ({ layer, head }) => points((each) => copying(each, repeats, layer, head));
    const now = { layer: state.view.layer, head: state.view.head };
    const series = [{ name: `layer ${best.layer + 1}, head ${best.head + 1} (the most)`, points: of(best), kind: 0 }];
    if (now.layer !== best.layer || now.head !== best.head) series.push({ name: `layer ${now.layer + 1}, head ${now.head + 1}`, points: of(now), kind: 1 });
    copies.show(series, state.step);
  }
  return { boxes: [chance.box, loss.box, copies.box], show };
}

/** The likeliest next tokens of the snapshot, and which of them is followed. */
function nextOf(state) {
  const bars = barList("likeliest next tokens at this step");
  const select = element("select", { id: "time-watch", change: () => {
    state.own = select.value !== "";
    if (state.own && Number(select.value) !== state.picked) {
      state.picked = Number(select.value);
      state.cache.clear();
      loadAll(state);
    } else {
      state.show();
    }
  } });
  const part = section("What comes next?", "What this snapshot expects after the chosen token.",
    element("p", { class: "row start" }, element("label", { for: "time-watch" }, "the token to follow"), select), bars.list);
  function show() {
    const { data, token } = state.view;
    const { probabilities } = distribution(data.next[token]);
    const id = standing(state, data).id;
    const rows = data.next[token].ids.slice(0, SHOWN).map((each, i) => ({
      text: state.view.word(each),
      value: probabilities[i],
      label: percent(probabilities[i]),
      mark: each === id,
      note: each === id ? "◂ followed" : "",
    }));
    bars.show(rows, scaleFor(rows[0].value));
    const follows = data.tokens[token + 1];
    const last = state.cache.get(state.steps.at(-1)) ?? data;
    const ids = [...new Set([state.picked, ...last.next[token].ids.slice(0, SHOWN), ...data.next[token].ids.slice(0, SHOWN)])];
    const texts = (each) => spoken(data.words[each] ?? last.words[each] ?? "");
    const options = ids.map((each) => element("option", { value: each }, texts(each)));
    if (follows) options.unshift(element("option", { value: "" }, `what the text has: ${texts(follows.id)}`));
    select.replaceChildren(...options);
    select.value = follows && !state.own ? "" : state.picked;
  }
  return { part, show };
}

/** Which head is looked at. */
function headsOf(state, { n_layers, n_heads }) {
  const pick = (name, count) => {
    const made = element("select", { id: `time-${name}`, change: () => state.view.choose({ [name]: made.selectedIndex }) });
    made.append(...Array.from({ length: count }, (_, i) => element("option", {}, `${i + 1}`)));
    return made;
  };
  const [layer, head] = [pick("layer", n_layers), pick("head", n_heads)];
  const box = element("p", { class: "row start" }, element("label", { for: "time-layer" }, "layer"), layer, element("label", { for: "time-head" }, "head"), head);
  return {
    box,
    show() {
      layer.selectedIndex = state.view.layer;
      head.selectedIndex = state.view.head;
    },
  };
}
