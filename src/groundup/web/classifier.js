/** A classifier: a message of one's own and what moves it; what it did on its test, and a threshold. */

import { barList } from "./bars.js";
import { chart } from "./chart.js";
import { element, percent, section, spoken, word } from "./dom.js";

const SHOWN = 12;
const MISTAKES = 100;

/** Show the chosen classifier, and another one when it is chosen. */
export async function mount(root, context) {
  const begin = () => {
    const own = message(context, context.model);
    const test = tested(context, context.model, own.read);
    root.replaceChildren(own.part, test.part);
    return test.load();
  };
  context.follow?.(begin);
  await begin();
}

/** A message of one's own. */
function message(context, model) {
  const text = element("textarea", { id: "message", rows: 3, maxlength: 10000, required: true });
  const problem = element("p", { class: "problem", role: "alert", hidden: true });
  const bars = barList("how likely each class is");
  const strip = element("p", { class: "tokens effects", "aria-hidden": true });
  const told = element("p", { class: "told", role: "status" });
  const moved = barList("without each of these tokens");
  const effects = element("div", { class: "two", hidden: true },
    element("div", {}, element("h3", {}, "What it says"), bars.list, told, strip),
    element("div", {}, element("h3", {}, "Which tokens moved it"), element("p", { class: "quiet" }, "The message was read again without each token. What a token did to the odds of the answer: × made it so many times as likely, ÷ spoke against it."), moved.list));
  const form = element("form", { class: "asking", submit: (event) => {
    event.preventDefault();
    read();
  } }, element("label", { for: "message" }, "a message"), text, element("div", { class: "row start" }, element("button", { type: "submit", class: "main" }, "Classify")), problem);
  let turn = 0;
  async function read(given) {
    if (given !== undefined) text.value = given;
    const mine = ++turn;
    try {
      const found = await context.fetch("page/classify", { model: model.name, text: text.value });
      if (mine !== turn) return;
      problem.hidden = true;
      effects.hidden = false;
      show(found);
    } catch (error) {
      if (mine !== turn) return;
      problem.textContent = error.message;
      problem.hidden = false;
    }
  }
  function show(found) {
    const { labels } = found;
    const probabilities = found.odds.map(likely);
    const best = likeliest(probabilities);
    bars.show(labels.map((label, i) => ({ text: label, plain: true, value: probabilities[i], label: percent(probabilities[i]), mark: i === best })));
    const pull = found.without.map((row) => (row === null ? null : found.odds[best] - row[best]));
    const cut = found.cut ? ` The last ${found.cut.toLocaleString("en")} tokens are more than it reads.` : "";
    told.textContent = `${labels[best]}, ${percent(probabilities[best])}.${cut}`;
    const most = Math.max(0.05, ...pull.map((value) => Math.abs(value ?? 0)));
    strip.replaceChildren(...found.tokens.map((id, i) => chip(found.words[id], pull[i] ?? null, most)));
    const order = pull.map((value, i) => [value, i]).filter(([value]) => value !== null).sort((a, b) => Math.abs(b[0]) - Math.abs(a[0])).slice(0, SHOWN);
    moved.show(order.map(([value, i]) => {
      const then = likeliest(found.without[i]);
      return {
        text: found.words[found.tokens[i]],
        value: Math.abs(value),
        label: `${value >= 0 ? "×" : "÷"}${times(Math.exp(Math.abs(value)))}`,
        mark: then !== best,
        note: then !== best ? `◂ without it: ${labels[then]}` : `${percent(likely(found.without[i][best]))} without it`,
      };
    }), most);
  }
  return { part: section(`Is it ${spokenList(model.labels)}?`, "The stronger a token's line, the more it speaks for the answer; a dashed line speaks against it.", form, effects), read };
}

/** A probability, by the logarithm of its odds. */
function likely(odds) {
  return 1 / (1 + Math.exp(-odds));
}

function times(factor) {
  return factor < 100 ? factor.toPrecision(2) : Number(factor.toPrecision(2)).toLocaleString("en", { notation: "compact" });
}

function chip(text, pull, most) {
  const made = element("span", { class: `effect-token ${pull === null ? "" : pull >= 0 ? "for" : "against"}` }, word(text));
  made.style.setProperty("--pull", (Math.abs(pull ?? 0) / most).toFixed(3));
  return made;
}

function spokenList(labels) {
  return labels.length > 4 ? `one of ${labels.length} classes` : labels.join(", or ");
}

function likeliest(row) {
  return row.indexOf(Math.max(...row));
}

/** What the run did on the texts of its test split. */
function tested(context, model, read) {
  const missing = element("p", { class: "note", hidden: true });
  const stage = element("div");
  const part = section("On its test", "Texts that it never saw while it learned. Choose a class and a threshold: how sure must the classifier be to call a text so? Choose a cell to see its texts.", missing, stage);
  async function load() {
    try {
      const found = await context.fetch("page/classify/tested", { model: model.name });
      if (found.missing || !found.rows.length) {
        missing.textContent = found.missing ?? "Its test split is empty.";
        missing.hidden = false;
        return;
      }
      stage.replaceChildren(...figures(found, read));
    } catch (error) {
      missing.textContent = error.message;
      missing.hidden = false;
    }
  }
  return { part, load };
}

function figures({ labels, rows, count }, read) {
  const state = { positive: labels.length === 2 ? 1 : null, threshold: 0.5, cell: null };
  const select = element("select", { id: "positive", change: () => {
    state.positive = select.value === "" ? null : Number(select.value);
    state.cell = null;
    draw();
  } }, element("option", { value: "" }, "each text its likeliest class"), ...labels.map((label, i) => element("option", { value: i }, label)));
  select.value = state.positive ?? "";
  const slider = element("input", { type: "range", id: "threshold", min: 0, max: 1, step: 0.01, value: 0.5, input: () => {
    state.threshold = Number(slider.value);
    draw();
  } });
  const output = element("output", { for: "threshold" });
  const line = element("div", { class: "slider wide" }, element("label", { for: "threshold" }, "call it so from"), slider, output);
  const facts = element("p", { class: "facts-line", role: "status" });
  const table = element("div", { class: "wide" });
  const curve = chart({ title: "Precision and recall at each threshold", unit: "threshold", from: 0, to: 1, told: percent, choose: (x) => {
    state.threshold = x;
    slider.value = x;
    draw();
  } });
  const heading = element("h3", { tabindex: -1 });
  const list = element("ol", { class: "mistakes" });
  function draw() {
    const names = state.positive === null ? labels : [`not ${labels[state.positive]}`, labels[state.positive]];
    const called = rows.map((row) => callOf(row, state));
    const matrix = names.map(() => names.map(() => 0));
    called.forEach(([is, says]) => matrix[is][says]++);
    output.textContent = percent(state.threshold);
    slider.setAttribute("aria-valuetext", output.textContent);
    line.hidden = curve.box.hidden = state.positive === null;
    facts.textContent = summary(matrix, state, count);
    table.replaceChildren(matrixOf(matrix, names, state.cell, (cell) => {
      state.cell = cell;
      draw();
      table.querySelector('[aria-pressed="true"]')?.focus();
    }));
    if (state.positive !== null) curve.show(precisionRecall(rows, state.positive), state.threshold);
    const wanted = rows.filter((_, i) => (state.cell ? called[i].join() === state.cell.join() : called[i][0] !== called[i][1]));
    heading.textContent = state.cell ? `${names[state.cell[0]]}, called ${names[state.cell[1]]}: ${wanted.length.toLocaleString("en")}` : `Mistakes: ${wanted.length.toLocaleString("en")}`;
    wanted.sort((a, b) => Math.max(...b.probabilities) - Math.max(...a.probabilities));
    list.replaceChildren(...wanted.slice(0, MISTAKES).map((row) => mistake(row, labels, read)));
  }
  draw();
  const choice = element("div", { class: "row start" }, element("label", { for: "positive" }, "what is looked for"), select);
  return [choice, line, facts, element("div", { class: "two" }, table, curve.box), heading, list];
}

/** What a text is and what it is called, as rows and columns of the matrix. */
function callOf({ label, probabilities }, { positive, threshold }) {
  if (positive === null) return [label, likeliest(probabilities)];
  return [Number(label === positive), Number(probabilities[positive] >= threshold)];
}

function summary(matrix, { positive }, count) {
  const total = matrix.flat().reduce((sum, n) => sum + n, 0);
  const right = matrix.reduce((sum, row, i) => sum + row[i], 0);
  const share = (a, b) => (b ? `${((100 * a) / b).toFixed(1)}%` : "none");
  const texts = count > total ? `${total.toLocaleString("en")} of ${count.toLocaleString("en")} texts` : `${total.toLocaleString("en")} texts`;
  const said = [texts, `accuracy ${share(right, total)}`];
  if (positive !== null) {
    const [[, wrongly], [missed, found]] = matrix;
    said.push(`precision ${share(found, found + wrongly)}`, `recall ${share(found, found + missed)}`);
  }
  return said.join(" · ");
}

function matrixOf(matrix, names, chosen, choose) {
  const most = Math.max(1, ...matrix.flat());
  const cell = (value, i, j) => {
    const button = element("button", { type: "button", class: i === j ? "cell right" : "cell", "aria-pressed": String(chosen?.join() === `${i},${j}`), "aria-label": `${names[i]}, called ${names[j]}: ${value}`, click: () => choose(chosen?.join() === `${i},${j}` ? null : [i, j]) }, value.toLocaleString("en"));
    button.style.setProperty("--share", (value / most).toFixed(3));
    return element("td", {}, button);
  };
  return element("table", { class: "confusion" },
    element("caption", {}, "Rows: what texts are. Columns: what they are called."),
    element("thead", {}, element("tr", {}, element("td"), ...names.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...matrix.map((row, i) => element("tr", {}, element("th", { scope: "row" }, names[i]), ...row.map((value, j) => cell(value, i, j))))));
}

/** Precision and recall at 101 thresholds, from the probabilities in order. */
function precisionRecall(rows, positive) {
  const sorted = rows.map(({ label, probabilities }) => [probabilities[positive], label === positive]).sort((a, b) => b[0] - a[0]);
  const all = sorted.filter(([, is]) => is).length;
  const [precision, recall] = [[], []];
  let [taken, found] = [0, 0];
  for (let percentage = 100; percentage >= 0; percentage--) {
    const threshold = percentage / 100;
    while (taken < sorted.length && sorted[taken][0] >= threshold) found += Number(sorted[taken++][1]);
    if (taken) precision.unshift([threshold, found / taken]);
    if (all) recall.unshift([threshold, found / all]);
  }
  return [{ name: "precision", points: precision, kind: 0 }, { name: "recall", points: recall, kind: 1 }];
}

function mistake({ row, text, label, probabilities }, labels, read) {
  const best = likeliest(probabilities);
  const why = element("button", { type: "button", class: "link", "aria-label": `classify ${spoken(text)}`, click: () => {
    read(text);
    document.getElementById("message").scrollIntoView({ block: "center" });
    document.getElementById("message").focus();
  } }, "which tokens?");
  return element("li", {},
    element("span", { class: "when" }, `row ${row}: ${labels[label]}, called ${labels[best]} (${percent(probabilities[best])}) `, why),
    element("bdi", { class: "wrote" }, text));
}
