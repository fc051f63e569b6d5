/** The X-ray of any text, live: parts can be silenced, and the model reads and writes without them. */

import { barList } from "./bars.js";
import { element, section, visible, word } from "./dom.js";
import { nameOf } from "./parts.js";
import { growing } from "./talk.js";
import { mount as mountXray, strongest } from "./xray.js";

const FIRST = "The capital of France is Paris. The capital of Italy is";

export async function mount(root, context) {
  const area = element("textarea", { rows: 2, "aria-label": "a text for the model to read", dir: "auto" });
  area.value = FIRST;
  growing(area);
  const button = element("button", { type: "submit", class: "main" }, "Read");
  const state = element("p", { class: "state quiet", role: "status" });
  const problem = element("p", { class: "problem", role: "alert", hidden: true });
  const picture = element("div", { class: "xray" });
  const form = element("form", { class: "reading", submit: (event) => {
    event.preventDefault();
    read();
  } }, area, element("div", { class: "row" }, state, button));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  root.replaceChildren(form, problem, picture, lookup(context));

  let running = null;
  function fail(error) {
    if (error.name === "AbortError") return;
    state.textContent = "";
    problem.textContent = visible(error.message);
    problem.hidden = false;
  }
  async function read() {
    running?.stop();
    problem.hidden = true;
    state.textContent = "Reading …";
    const mine = (running = reading(context, area.value, picture, state, fail));
    try {
      await mine.done;
    } catch (error) {
      fail(error);
    }
  }
  context.follow(read);
  await read();
}

/** One text that is read: it shows itself in the picture, as it becomes known. */
function reading(context, text, picture, state, fail) {
  const one = { context, asked: { model: context.model.name, text }, picture, state, fail, view: null };
  one.all = new AbortController();
  one.again = new AbortController();
  one.live = liveParts(() => readAgain(one));
  return {
    done: readFirst(one),
    stop() {
      one.all.abort();
      one.again.abort();
    },
  };
}

/** Read the text with all parts, and try each of them. */
async function readFirst(one) {
  const { context, asked, live, state } = one;
  let known = 0;
  await context.stream("page/xray", asked, (event) => {
    if (event.xray) {
      const data = event.xray;
      data.changes = partsOf(data);
      live.intact = { ...data };
      one.view = live.view = mountXray(one.picture, data, live);
      live.first = one.view.part;
    }
    if (event.written !== undefined) live.wrote(event.written, false);
    if (event.changes) {
      const { data } = one.view;
      event.changes.forEach((change, i) => Object.assign(data.changes[known + i], change));
      Object.assign(data.words, event.words);
      known += event.changes.length;
      state.textContent = `Trying its parts, one at a time: ${known} of ${data.changes.length}`;
      one.view.choose({});
    }
    if (event.done) finish(one);
  }, one.all.signal);
}

/** All is known: choose the head that matters most, unless somebody has chosen one. */
function finish({ view, live, state }) {
  state.textContent = `${view.data.tokens.length} tokens read`;
  if (live.touched || view.part !== live.first) return;
  const part = strongest(view.data, view.token);
  const { layer, head } = view.data.changes[part];
  view.choose({ part, layer, head });
}

/** Read the text once more without the parts that are silenced, or show it as it was. */
async function readAgain(one) {
  const { context, asked, live, view, picture } = one;
  one.again.abort();
  one.again = new AbortController();
  if (!live.silenced.size) {
    live.wrote(null, true);
    view.update(numbersOf(live.intact));
    picture.removeAttribute("aria-busy");
    return;
  }
  view.choose({});
  picture.setAttribute("aria-busy", true);
  live.wrote("", true);
  const silenced = [...live.silenced].map((i) => {
    const { layer, part, head } = view.data.changes[i];
    return { layer, part, head };
  });
  try {
    await context.stream("page/xray", { ...asked, silenced }, (event) => {
      if (event.xray) {
        view.update({ ...numbersOf(event.xray), words: event.xray.words });
        picture.removeAttribute("aria-busy");
      }
      if (event.written !== undefined) live.wrote(event.written, true);
    }, one.again.signal);
  } catch (error) {
    if (error.name !== "AbortError") picture.removeAttribute("aria-busy");
    one.fail(error);
  }
}

/** What another reading of the same text changes. */
function numbersOf({ tokens, next, lens, attention, norms }) {
  return { tokens, next, lens, attention, norms };
}

/** All parts of a model, of which nothing is known yet. */
function partsOf({ n_layers, n_heads }) {
  const found = [];
  for (let layer = 0; layer < n_layers; layer++) {
    for (let head = 0; head < n_heads; head++) found.push({ layer, part: "head", head, effect: null });
    for (const part of ["attention", "feed_forward"]) found.push({ layer, part, head: null, effect: null });
  }
  return found;
}

/** Which parts are silenced, what that is called, and where one sees and changes it. */
function liveParts(changed) {
  const bar = element("span", { class: "silence" });
  const [before, after] = [0, 1].map(() => element("span", { class: "writes", dir: "auto" }));
  const without = element("p", { class: "goes-on", hidden: true }, element("span", { class: "quiet" }, "without "), element("span", { class: "what" }), element("span", { class: "quiet" }, ": "), after);
  const story = element("div", { class: "story" }, element("p", { class: "goes-on" }, element("span", { class: "quiet" }, "It would go on: "), before), without);
  const live = { silenced: new Set(), intact: null, view: null, touched: false, bar, story };

  live.told = () => {
    const parts = [...live.silenced].map((i) => live.view.data.changes[i]);
    return parts.length === 1 ? nameOf(parts[0]) : `${parts.length} silenced parts`;
  };
  live.wrote = (text, silenced) => {
    if (!silenced) before.textContent = inOneLine(text);
    else {
      without.hidden = text === null;
      after.textContent = inOneLine(text ?? "");
    }
  };
  live.toggle = (part) => {
    live.touched = true;
    if (!live.silenced.delete(part)) live.silenced.add(part);
    tell();
    changed();
  };
  live.switch = (view) => {
    const button = element("button", { type: "button", class: "main", click: () => live.toggle(view.part) });
    view.follow(() => {
      button.textContent = live.silenced.has(view.part) ? "Let it speak again" : "Silence it, and read again";
    });
    return element("p", {}, button);
  };
  function tell() {
    const parts = [...live.silenced].map((i) => {
      const name = nameOf(live.view.data.changes[i]);
      return element("button", { type: "button", class: "plain", title: "let it speak again", "aria-label": `let ${name} speak again`, click: () => live.toggle(i) }, name, " ×");
    });
    without.querySelector(".what").textContent = live.silenced.size ? live.told() : "";
    bar.replaceChildren(...(parts.length ? [element("span", { class: "quiet" }, "silenced: "), ...parts] : []));
  }
  return live;
}

/** A text whose line ends are signs. */
function inOneLine(text) {
  return visible(text).trimStart().replace(/\s*\n\s*/g, " ↵ ");
}

/** Any token's neighbours, and theirs: from one to the next. */
function lookup(context) {
  const input = element("input", { type: "text", id: "lookup", value: " the", spellcheck: false });
  const places = element("p", { class: "path" });
  const bars = barList("tokens with similar embeddings");
  const told = element("p", { class: "told quiet", "aria-live": "polite" });
  async function look(what) {
    told.textContent = "";
    try {
      const { tokens, words, neighbours } = await context.fetch("page/neighbours", { model: context.model.name, ...what });
      const jump = (id) => element("button", { type: "button", class: "plain", click: () => look({ id }) }, word(words[id]));
      places.replaceChildren(element("span", { class: "quiet" }, "nearest to "), word(words[tokens[0]]));
      if (tokens.length > 1) places.append(element("span", { class: "quiet" }, " (the text's first token; the others: "), ...tokens.slice(1).map(jump), element("span", { class: "quiet" }, ")"));
      const near = neighbours[tokens[0]];
      bars.show(near.map(([id, cosine]) => ({ text: words[id], value: Math.max(0, cosine), label: cosine.toFixed(2) })));
      [...bars.list.children].forEach((line, i) => {
        const name = line.querySelector(".name");
        const [id] = near[i];
        name.replaceChildren(element("button", { type: "button", class: "link", click: () => look({ id }) }, word(words[id])));
      });
    } catch (error) {
      bars.show([]);
      places.replaceChildren();
      told.textContent = visible(error.message);
    }
  }
  const search = () => input.value && look({ text: input.value });
  const form = element("form", { class: "row start", submit: (event) => {
    event.preventDefault();
    search();
  } }, element("label", { for: "lookup" }, "a word, with the space before it"), input, element("button", { type: "submit", class: "plain" }, "Look up"));
  context.follow(search);
  search();
  return section(
    "Look up any token",
    "Which tokens have the most similar embeddings, in the table that the model reads its input by? " +
      "Choose one of them to go on from there.",
    form, places, told, bars.list,
  );
}
