/** A text that the model continues: one's own words, then its. */

import { element, visible } from "./dom.js";
import { followEnd, growing } from "./talk.js";
import { write } from "./writing.js";

/** The text, and its continuation below; `shared` has the context and what is set beside it. */
export function completeView(shared) {
  const area = element("textarea", { rows: 4, "aria-label": "your text", placeholder: "Once upon a time", dir: "auto" });
  const fit = growing(area);
  const mine = element("span", { class: "given" });
  const theirs = element("span", { class: "written" });
  const text = element("div", { class: "text whole", dir: "auto", role: "log", "aria-label": "the text, continued", hidden: true }, mine, theirs);
  const told = element("p", { class: "told quiet" });
  const problem = element("p", { class: "problem", role: "alert", hidden: true });
  const go = element("button", { type: "submit", class: "main" }, "Write on");
  const keep = element("button", { type: "button", class: "plain", hidden: true, click: () => {
    area.value += it.found;
    it.found = "";
    text.hidden = keep.hidden = true;
    told.textContent = "";
    go.textContent = "Write on";
    fit();
    area.focus();
  } }, "Keep it, and go on");
  // What the model has written, and what stops it while it does.
  const it = { ...shared, area, mine, theirs, text, told, problem, go, keep, found: "", writing: null };
  const form = element("form", { class: "whole", submit: (event) => {
    event.preventDefault();
    if (it.writing) it.writing.abort();
    else goOn(it);
  } }, area, element("div", { class: "row" }, element("span", {}, go, " ", keep), element("span", { class: "quiet small" }, "Ctrl + Enter")));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    if (event.key === "Escape") it.writing?.abort();
  });
  return {
    root: element("div", {}, form, problem, text, told),
    stop: () => it.writing?.abort(),
    renew: fit,
    request: () => requestFor(it),
    prompt: () => ({ text: area.value || area.placeholder }),
  };
}

function requestFor({ context, sampling, area }) {
  return { path: "v1/completions", body: { model: context.model.name, prompt: area.value || area.placeholder, ...sampling() } };
}

/** Let the model continue the text. */
async function goOn(it) {
  const { context, area, mine, theirs, text, told, problem, go, keep } = it;
  if (!area.value) area.value = area.placeholder;
  it.writing = new AbortController();
  const { path, body } = requestFor(it);
  [it.found, theirs.textContent, told.textContent] = ["", "", "…"];
  mine.textContent = visible(body.prompt);
  problem.hidden = keep.hidden = true;
  text.hidden = false;
  go.textContent = "Stop";
  try {
    const written = await write(context, path, body, (all) => {
      it.found = all;
      theirs.textContent = visible(all);
      followEnd(text);
    }, it.writing.signal);
    told.textContent = written.told;
  } catch (error) {
    told.textContent = "";
    problem.textContent = visible(error.message);
    problem.hidden = false;
    text.hidden = !it.found;
  }
  it.writing = null;
  go.textContent = it.found ? "Write on anew" : "Write on";
  keep.hidden = !it.found;
}
