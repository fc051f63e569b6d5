/** A run: how far it is, its curves (live while it trains), its samples, and its model through time. */

import { chart, short } from "./chart.js";
import { element, section } from "./dom.js";
import { throughTime } from "./history.js";

const EVERY = 2000; // milliseconds
const OTHERS = [
  { name: "val_accuracy", title: "Accuracy", others: ["train_accuracy"], told: (y) => `${(100 * y).toFixed(1)}%` },
  { name: "learning_rate", title: "Learning rate" },
  { name: "grad_norm", title: "Length of the gradient" },
  { name: "tokens_per_second", title: "Tokens per second" },
];

/** Show the run of the chosen model, and of another one when it is chosen. */
export async function mount(root, context) {
  let stop = () => {};
  const begin = () => {
    stop();
    stop = follow(root, context, context.model);
  };
  context.follow?.(begin);
  begin();
}

/** Follow a run until told not to. */
function follow(root, context, model) {
  const run = { metrics: {}, samples: [], history: [], damaged: 0 };
  const places = { metrics: { id: "", offset: 0 }, samples: { id: "", offset: 0 } };
  const status = element("p", { class: "status", role: "status" });
  const problem = element("p", { class: "problem", role: "alert", hidden: true });
  const [curves, samples, time] = [curvesOf(), samplesOf(), throughTime(context, model)];
  root.replaceChildren(element("header", {}, status, problem), curves.part, time.part, samples.part);
  let stopped = false;
  async function poll() {
    if (stopped) return;
    let soon = false;
    if (!root.hidden && !document.hidden) {
      try {
        const told = await context.fetch("page/run", { model: model.name, ...places });
        if (stopped) return;
        if (told.metrics.anew && places.metrics.id) time.forget();
        soon = take(run, told, places);
        problem.hidden = true;
        status.replaceChildren(...statusOf(run, told));
        curves.show(run, told);
        samples.show(run.samples);
        time.show(told.history, told.prompt);
      } catch (error) {
        problem.textContent = error.message;
        problem.hidden = false;
      }
    }
    setTimeout(poll, soon ? 0 : EVERY);
  }
  poll();
  return () => {
    stopped = true;
    time.stop();
  };
}

/** Add what is new, or begin anew where the run does; whether there is more already. */
function take(run, told, places) {
  for (const name of ["metrics", "samples"]) {
    const { id, offset, anew } = told[name];
    if (anew) run[name] = name === "metrics" ? {} : [];
    places[name] = { id, offset };
  }
  run.damaged = (told.metrics.anew ? 0 : run.damaged) + told.metrics.damaged;
  const { rows } = told.metrics;
  for (const [name, values] of Object.entries(rows)) {
    if (name === "step") continue;
    const points = (run.metrics[name] ??= []);
    values.forEach((value, i) => {
      const step = rows.step?.[i] ?? null;
      if (value === null || step === null) return;
      if (points.length && points.at(-1)[0] === step) points.pop(); // an evaluation repeats its step
      points.push([step, value]);
    });
  }
  run.samples.push(...told.samples.rows);
  return told.metrics.more || told.samples.more;
}

function statusOf({ metrics, damaged }, { running, steps, task }) {
  const done = metrics.loss?.at(-1)?.[0] ?? 0;
  const of = steps ? ` of ${steps.toLocaleString("en")}` : "";
  const seconds = metrics.seconds?.at(-1)?.[1];
  const parts = [
    element("span", { class: running ? "light on" : "light" }, running ? "● training" : "○ not training"),
    ` · ${task ? `${task}, ` : ""}step ${done.toLocaleString("en")}${of}`,
  ];
  if (seconds !== undefined) parts.push(`, ${duration(seconds)}`);
  if (damaged) parts.push(`; ${damaged} lines of its measurements cannot be read`);
  return parts;
}

function duration(seconds) {
  if (seconds < 100) return `${seconds.toFixed(0)} s`;
  return seconds < 6000 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** The losses in one chart, each other measurement in a small one. */
function curvesOf() {
  const loss = chart({ title: "Loss", height: 280 });
  const small = OTHERS.map((other) => ({ ...other, chart: chart({ title: other.title, height: 150, told: other.told ?? short }) }));
  const grid = element("div", { class: "charts" });
  const log = element("input", { type: "checkbox", id: "log-steps", change: () => {
    for (const each of [loss, ...small.map((other) => other.chart)]) each.scale(log.checked);
  } });
  const part = section(
    "How it learns",
    "The loss is how surprised the model is by each next token, on the average: what it trains on, and the text that it never trains on (validation). Where only the second one rises, it learns by heart.",
    element("p", { class: "switches" }, log, " ", element("label", { for: "log-steps" }, "the first steps wider (logarithmic)")),
    loss.box,
    grid,
  );
  const line = (metrics, name, label, kind) => ({ name: label, points: metrics[name] ?? [], kind });
  return {
    part,
    show({ metrics }) {
      const more = Object.keys(metrics).filter((name) => name.startsWith("val_loss_"));
      loss.show([
        line(metrics, "val_loss", "validation", 0),
        line(metrics, "running_loss", "training, mean of 20 steps", 1),
        line(metrics, "loss", "each step", 3),
        ...more.map((name) => line(metrics, name, name.slice(9), 2)),
      ]);
      const there = small.filter(({ name }) => metrics[name]?.length);
      if (grid.childElementCount !== there.length) grid.replaceChildren(...there.map((other) => other.chart.box));
      for (const { name, title, others = [], chart: drawn } of there) {
        const label = others.length ? "validation" : title.toLowerCase();
        drawn.show([line(metrics, name, label, 0), ...others.map((other) => line(metrics, other, "training", 1))]);
      }
    },
  };
}

/** What the model wrote in the course of the run: the newest first. */
function samplesOf() {
  const list = element("ol", { class: "samples", tabindex: 0, "aria-label": "samples, the newest first" });
  const part = section("What it wrote", "After each evaluation the model went on from the same beginning.", list);
  let shown = [];
  return {
    part,
    show(samples) {
      part.hidden = !samples.length;
      if (shown.length === samples.length && shown.at(-1) === samples.at(-1)) return;
      shown = [...samples];
      list.replaceChildren(...samples.slice(-200).reverse().map(({ step, prompt, text }) =>
        element("li", {}, element("span", { class: "when" }, `step ${step.toLocaleString("en")}`),
          element("bdi", { class: "wrote" }, element("span", { class: "given" }, prompt), text))));
    },
  };
}
