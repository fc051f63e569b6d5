/** Judged answers side by side: filtered by verdict and words, or only where verdicts disagree. */

import { element } from "./dom.js";

const AT_ONCE = 20;
const ORDERS = {
  entry: ["by number", (a, b) => a.entry - b.entry],
  best: ["best first", (a, b) => rankOf(b) - rankOf(a) || a.entry - b.entry],
  worst: ["worst first", (a, b) => rankOf(a) - rankOf(b) || a.entry - b.entry],
  disagree: ["largest disagreement first", (a, b) => b.disagree - a.disagree || a.entry - b.entry],
};

/** The page of a server: the judged runs of the chosen model. */
export async function mount(root, context) {
  const part = element("div");
  const show = async (number) => {
    try {
      const data = await context.fetch("page/judged", { model: context.model.name, number });
      const select = element("select", { id: "judged", change: () => show(select.selectedIndex) }, ...data.names.map((name) => element("option", {}, name)));
      select.selectedIndex = number;
      const stage = element("div");
      part.replaceChildren(element("p", { class: "row start" }, element("label", { for: "judged" }, "judged run"), select), stage);
      answersBeside(stage, data);
    } catch (error) {
      part.replaceChildren(element("p", { class: "problem", role: "alert" }, error.message));
    }
  };
  root.replaceChildren(part);
  context.follow?.(() => show(0));
  await show(0);
}

/** Show `data` (what `beside` of judge/beside.py gives) within an element. */
export function answersBeside(root, data) {
  const { rows, pairwise, disagreement } = data;
  const state = { shown: AT_ONCE };
  const count = element("p", { class: "count", role: "status" });
  const list = element("ol", { class: "judged" });
  const more = element("button", { type: "button", class: "plain", click: () => {
    state.shown += AT_ONCE;
    draw();
  } }, "show more");
  const { box, passes, order } = filters(rows, pairwise, disagreement, () => {
    state.shown = AT_ONCE;
    draw();
  });
  function draw() {
    const found = rows.filter(passes).sort(ORDERS[order()][1]);
    count.textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} entries`;
    list.replaceChildren(...found.slice(0, state.shown).map((row) => entryOf(row, pairwise)));
    more.hidden = found.length <= state.shown;
  }
  root.replaceChildren(element("p", { class: "headline" }, `${data.title}: ${data.headline}`), box, count, list, more);
  draw();
}

/** The filters: `passes` says whether a row is to be shown, `order` by what they are sorted. */
function filters(rows, pairwise, disagreement, changed) {
  const words = element("input", { type: "search", id: "judged-words", placeholder: "in tasks and answers", input: changed });
  const kinds = pairwise ? ["A", "tie", "B", "unscored"] : ["scored", "unscored"];
  const verdict = element("select", { id: "judged-verdict", change: changed }, element("option", { value: "" }, "any"), ...kinds.map((kind) => element("option", { value: kind }, kind === "A" || kind === "B" ? `${kind} is better` : kind)));
  const least = element("input", { type: "number", id: "judged-least", "aria-label": "lowest score", input: changed });
  const most = element("input", { type: "number", id: "judged-most", "aria-label": "highest score", input: changed });
  const only = element("input", { type: "checkbox", id: "judged-only", change: changed });
  const sort = element("select", { id: "judged-order", change: changed }, ...Object.entries(ORDERS).filter(([name]) => (name === "disagree" ? disagreement : name === "entry" || !pairwise)).map(([name, [label]]) => element("option", { value: name }, label)));
  const box = element("form", { class: "filters", submit: (event) => event.preventDefault() },
    element("span", {}, element("label", { for: "judged-words" }, "words"), words),
    element("span", {}, element("label", { for: "judged-verdict" }, "verdict"), verdict),
    ...(pairwise ? [] : [element("span", {}, element("label", { for: "judged-least" }, "score from"), least, element("label", { for: "judged-most" }, "to"), most)]),
    element("span", {}, element("label", { for: "judged-order" }, "order"), sort),
    ...(disagreement ? [element("span", {}, only, element("label", { for: "judged-only" }, `only where ${disagreement} (${rows.filter((row) => row.disagree).length})`))] : []));
  function passes(row) {
    const wanted = words.value.trim().toLowerCase();
    if (wanted && ![row.task, ...Object.values(row.texts)].some((text) => text.toLowerCase().includes(wanted))) return false;
    const kind = row.value === null ? "unscored" : pairwise ? row.value : "scored";
    if (verdict.value && kind !== verdict.value) return false;
    if (!pairwise && least.value !== "" && !(row.value !== null && row.value >= Number(least.value))) return false;
    if (!pairwise && most.value !== "" && !(row.value !== null && row.value <= Number(most.value))) return false;
    return !only.checked || row.disagree > 0;
  }
  return { box, passes, order: () => sort.value };
}

function rankOf({ value }) {
  return typeof value === "number" ? value : -Infinity;
}

/** An entry: its task, its answers beside each other, the reference, and what the judge said. */
function entryOf(row, pairwise) {
  const { reference, ...answers } = row.texts;
  const better = pairwise && ["A", "B"].includes(row.value) ? `response ${row.value}` : null;
  const columns = Object.entries(answers).map(([name, text]) =>
    element("div", { class: name === better ? "answer better" : "answer" }, element("h4", {}, name === better ? `${name} ✓` : name), element("bdi", { class: "answer-text" }, text || "(nothing)")));
  if (columns.length === 1) columns.push(element("div", { class: "answer" }, element("h4", {}, "reference"), element("bdi", { class: "answer-text" }, reference ?? "")));
  const folded = (title, ...texts) => element("details", {}, element("summary", {}, title), ...texts.map((text) => element("bdi", { class: "answer-text quieter" }, text)));
  return element("li", { class: row.disagree ? "disagrees" : "" },
    element("p", { class: "verdict" }, element("b", {}, `${row.entry}. `), row.words),
    element("bdi", { class: "answer-text task" }, row.task),
    element("div", { class: "columns" }, ...columns),
    ...(Object.keys(answers).length > 1 && reference ? [folded("reference", reference)] : []),
    ...(row.said.length ? [folded("what the judge said", ...row.said)] : []));
}
