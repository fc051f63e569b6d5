/** A conversation: what was said, edited, asked again; the newest answer grows as it is written. */

import { element, visible } from "./dom.js";
import { copyButton } from "./settings.js";
import { write } from "./writing.js";

/** The conversation and the box to write in; `shared` has the context and what is set beside it. */
export function talkView(shared) {
  const log = element("div", { class: "log", role: "log", "aria-label": "conversation" });
  const problem = element("p", { class: "problem", role: "alert", hidden: true });
  // Each turn: role, content, what is told of it; `writing` stops the answer that is being written.
  const talk = { ...shared, log, problem, turns: [], writing: null };
  const stop = () => talk.writing?.abort();
  talk.box = composer("Message", (text) => {
    talk.turns.push({ role: "user", content: text });
    answer(talk);
  }, stop);
  talk.clear = element("button", { type: "button", class: "quietly", click: () => {
    stop();
    talk.turns.length = 0;
    problem.hidden = true;
    draw(talk);
    talk.box.focus();
  } }, "New conversation");
  return {
    root: element("div", {}, log, problem, talk.box.root, talk.clear),
    stop,
    renew: () => draw(talk),
    request: () => requestOf(talk, asked(talk)),
    prompt: () => ({ messages: asked(talk) }),
  };
}

/** What was said, the system message first. */
function messagesOf({ system, turns }) {
  const told = system();
  const said = turns.map(({ role, content }) => ({ role, content }));
  return [...(told === null ? [] : [{ role: "system", content: told }]), ...said];
}

/** What the model would be asked with what is being typed; without it, what it was asked last. */
function asked(talk) {
  const draft = talk.box.value();
  const said = messagesOf(talk);
  const last = said.findLastIndex(({ role }) => role === "user");
  if (draft.trim() || last < 0) return [...said, { role: "user", content: draft.trim() ? draft : "Hello" }];
  return said.slice(0, last + 1);
}

function requestOf({ context, sampling }, messages) {
  return { path: "v1/chat/completions", body: { model: context.model.name, messages, ...sampling() } };
}

function draw(talk) {
  talk.log.replaceChildren(...talk.turns.map((turn, i) => turnOf(talk, turn, i)));
  talk.box.busy(talk.writing !== null);
  talk.clear.hidden = !talk.turns.length;
}

/** A message of somebody's, with what can be done about it. */
function turnOf(talk, turn, i) {
  const mine = turn.role === "user";
  const text = element("div", { class: "text", dir: "auto" }, visible(turn.content));
  const actions = element("div", { class: "actions" });
  const who = element("div", { class: "who" }, mine ? "you" : element("bdi", {}, visible(turn.model)));
  const told = element("div", { class: "told quiet" }, turn.told ?? "");
  const shown = element("article", { class: mine ? "turn mine" : "turn", "aria-label": mine ? "you" : visible(turn.model) }, who);
  if (mine) shown.append(element("div", { class: "row start" }, text, actions));
  else shown.append(text, element("div", { class: "row" }, told, actions));
  if (talk.writing) return shown;
  const change = mine ? () => edit(talk, i, shown) : () => again(talk, i);
  actions.append(element("button", { type: "button", class: "quietly", click: change }, mine ? "Edit" : "Another answer"));
  const copy = copyButton(() => turn.content);
  copy.className = "quietly";
  actions.append(copy);
  return shown;
}

/** Write a message anew; what came after it is gone when it is asked again. */
function edit(talk, i, shown) {
  const area = element("textarea", { "aria-label": "your message", rows: 2 });
  area.value = talk.turns[i].content;
  const send = () => {
    if (!area.value.trim()) return;
    talk.turns.splice(i, talk.turns.length, { role: "user", content: area.value });
    answer(talk);
  };
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") draw(talk);
    if (sends(event)) {
      event.preventDefault();
      send();
    }
  });
  const buttons = [
    element("button", { type: "button", class: "main", click: send }, "Ask again from here"),
    element("button", { type: "button", class: "plain", click: () => draw(talk) }, "Cancel"),
  ];
  shown.replaceChildren(area, element("div", { class: "row" }, ...buttons));
  growing(area);
  area.focus();
}

/** Another answer in the place of this one, and of all that came after it. */
function again(talk, i) {
  talk.turns.splice(i);
  answer(talk);
}

/** Let the model answer the last message. */
async function answer(talk) {
  const { context, log, problem, turns } = talk;
  const { path, body } = requestOf(talk, messagesOf(talk));
  const turn = { role: "assistant", content: "", model: context.model.name, told: "…" };
  const writing = (talk.writing = new AbortController());
  turns.push(turn);
  problem.hidden = true;
  draw(talk);
  log.setAttribute("aria-busy", true);
  const text = log.lastChild.querySelector(".text");
  log.lastChild.scrollIntoView({ block: "nearest" });
  try {
    const found = await write(context, path, body, (all) => {
      turn.content = all;
      text.textContent = visible(all);
      followEnd(text);
    }, writing.signal);
    turn.told = found.text ? found.told : `nothing · ${found.told}`;
  } catch (error) {
    if (turn.content) turn.told = "broken off";
    else if (turns.includes(turn)) turns.splice(turns.indexOf(turn), 1);
    problem.textContent = visible(error.message);
    problem.hidden = false;
    problem.scrollIntoView({ block: "nearest" });
  }
  if (talk.writing === writing) talk.writing = null;
  log.removeAttribute("aria-busy");
  draw(talk);
}

/** Whether a key sends: Enter, but not with Shift, nor while letters are being composed. */
export function sends(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing;
}

/** Let a box of text be as high as what is in it. */
export function growing(area) {
  const fit = () => {
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight + 2, 320)}px`;
  };
  area.addEventListener("input", fit);
  requestAnimationFrame(fit);
  return fit;
}

/** Keep the end of what is being written in sight, unless somebody has scrolled away from it. */
export function followEnd(shown) {
  const below = shown.getBoundingClientRect().bottom - innerHeight;
  if (below > -120 && below < 120) shown.scrollIntoView({ block: "end" });
}

/** A box to write a message in, with one button: to send it, or to stop the answer. */
function composer(label, send, stop) {
  const area = element("textarea", { rows: 1, "aria-label": label, placeholder: "Say something" });
  const button = element("button", { type: "submit", class: "main" }, "Send");
  let writing = false;
  const fit = growing(area);
  const form = element("form", { class: "composer", submit: (event) => {
    event.preventDefault();
    if (writing) return stop();
    const text = area.value;
    if (!text.trim()) return area.focus();
    area.value = "";
    fit();
    send(text);
  } }, area, button);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && writing) stop();
    if (!sends(event)) return;
    event.preventDefault();
    if (!writing) form.requestSubmit();
  });
  return {
    root: form,
    value: () => area.value,
    focus: () => area.focus(),
    busy(now) {
      writing = now;
      button.textContent = now ? "Stop" : "Send";
    },
  };
}
