/** Charts of lines: drawn as SVG, told apart without colour, read with the mouse or the arrow keys. */

import { drawing, element, step } from "./dom.js";

const EDGE = { left: 52, right: 14, top: 10, bottom: 26 };
const DOTS = 40; // up to so many points each is a dot

/**
 * A chart with a title. `show(series, mark)` draws series of `{ name, points, kind }`: points are
 * `[x, y]` in order of x, `kind` is 0 (strong), 1 (dashed), 2 (dotted) or 3 (faint); `mark` is an x
 * that is pointed out. `told` says a y in words; `choose` is called with the x that is clicked.
 */
export function chart({ title, height = 210, logX = false, from = null, to = null, unit = "step", told = short, choose = null }) {
  const canvas = drawing("svg", { class: "plot", tabindex: 0, role: "application", "aria-roledescription": "chart", "aria-label": `${title}; the left and right arrow keys read values` });
  const key = element("p", { class: "legend" });
  const reading = element("p", { class: "reading", "aria-live": "polite" });
  const box = element("figure", { class: "chart" }, element("figcaption", {}, title), key, canvas, reading);
  const state = { canvas, height, from, to, told, unit, logX, series: [], mark: null, at: null };
  const draw = () => paint(state, reading);
  const point = (at) => {
    state.at = at;
    draw();
  };
  canvas.addEventListener("pointermove", (event) => point(nearest(state, event)));
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("blur", () => point(null));
  canvas.addEventListener("click", (event) => {
    const at = nearest(state, event);
    if (choose && at !== null) choose(steps(state)[at]);
  });
  canvas.addEventListener("keydown", (event) => {
    const all = steps(state);
    const to = ["ArrowUp", "ArrowDown"].includes(event.key) ? null : step(event.key, state.at ?? all.length, all.length);
    if (to === null || !all.length) return;
    event.preventDefault();
    const stride = event.key.startsWith("Arrow") ? Math.max(1, Math.round(all.length / 100)) : 1;
    point(stride === 1 ? to : Math.max(0, Math.min(all.length - 1, (state.at ?? all.length) + stride * (event.key === "ArrowLeft" ? -1 : 1))));
  });
  new ResizeObserver(draw).observe(box);
  return {
    box,
    show(series, mark = null) {
      Object.assign(state, { series: series.filter(({ points }) => points.length), mark });
      if (state.at !== null) state.at = Math.min(state.at, steps(state).length - 1);
      key.replaceChildren(...state.series.map((each) => entry(each, told, mark)));
      draw();
    },
    scale(log) {
      state.logX = log;
      draw();
    },
  };
}

/** A number in few digits. */
export function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(size >= 1000 ? 4 : 3)));
}

function entry({ name, kind, points }, told, mark) {
  const line = drawing("line", { x1: 0, x2: 26, y1: 5, y2: 5, class: `line kind${kind}` });
  return element("span", {}, drawing("svg", { width: 26, height: 10, "aria-hidden": true }, line), ` ${name} `, element("b", {}, told((at(points, mark) ?? points.at(-1))[1])));
}

/** All x that a series has a point at, in order. */
function steps({ series }) {
  return [...new Set(series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
}

/** Where the numbers lie on the screen. */
function scales({ canvas, height, series, logX, from, to }) {
  const width = Math.max(220, canvas.parentNode.clientWidth || 560);
  const [left, right, top, bottom] = [EDGE.left, width - EDGE.right, EDGE.top, height - EDGE.bottom];
  const bend = logX ? (x) => Math.log10(Math.max(x, 1)) : (x) => x;
  let [x0, x1, y0, y1] = [Infinity, -Infinity, from ?? Infinity, to ?? -Infinity];
  for (const { points } of series) {
    for (const [x, y] of points) {
      [x0, x1] = [Math.min(x0, x), Math.max(x1, x)];
      [y0, y1] = [Math.min(y0, y), Math.max(y1, y)];
    }
  }
  if (!logX) x0 = 0;
  if (x1 <= x0) x1 = x0 + 1;
  const rows = nice(y0, y1 > y0 ? y1 : y0 + (Math.abs(y0) || 1), 4);
  [y0, y1] = [from ?? Math.min(y0, rows[0]), Math.max(to ?? -Infinity, rows.at(-1))];
  const across = (x) => left + ((bend(x) - bend(x0)) / (bend(x1) - bend(x0) || 1)) * (right - left);
  const up = (y) => bottom - ((y - y0) / (y1 - y0)) * (bottom - top);
  return { width, left, right, top, bottom, across, up, rows, columns: logX ? decades(x0, x1) : nice(x0, x1, width / 110).filter((x) => x <= x1) };
}

/** Round numbers from a lowest to above a highest one. */
function nice(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const stride = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough * 0.999);
  const found = [];
  for (let i = Math.floor(low / stride + 1e-9); found.length < 20; i++) {
    found.push(Number((i * stride).toPrecision(12)));
    if (i * stride >= high - 1e-9 * stride) break;
  }
  return found;
}

function decades(low, high) {
  const found = [];
  const few = high / Math.max(1, low) < 2000;
  for (let power = 1; power <= high * 1.001; power *= 10) {
    for (const x of few ? [power, 2 * power, 5 * power] : [power]) if (x >= low * 0.999 && x <= high * 1.001) found.push(x);
  }
  return found;
}

function paint(state, reading) {
  const { canvas, series, mark, height } = state;
  if (!series.length) {
    canvas.replaceChildren();
    reading.textContent = "nothing yet";
    return;
  }
  const place = scales(state);
  const { width, top, bottom, across, up } = place;
  canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
  canvas.style.height = `${height}px`;
  const drawn = [...grid(place, state)];
  const upright = (x, kind) => drawing("line", { x1: across(x), x2: across(x), y1: top, y2: bottom, class: kind });
  if (mark !== null) drawn.push(upright(mark, "chosen"));
  for (const each of [...series].sort((a, b) => b.kind - a.kind)) drawn.push(...curveOf(each, place, mark));
  const x = state.at === null ? null : steps(state)[state.at];
  if (x !== null) {
    drawn.push(upright(x, "cursor"));
    for (const { points } of series) {
      const found = at(points, x);
      if (found) drawn.push(drawing("circle", { cx: across(x), cy: up(found[1]), r: 4, class: "reads" }));
    }
  }
  canvas.replaceChildren(...drawn);
  reading.textContent = x === null ? " " : `${state.unit} ${x.toLocaleString("en")}: ${values(state, x)}`;
}

function values({ series, told }, x) {
  const found = series.map(({ name, points }) => [name, at(points, x)]).filter(([, point]) => point);
  return found.map(([name, [, y]]) => `${name} ${told(y)}`).join(", ");
}

/** The point at x. */
function at(points, x) {
  let [low, high] = [0, points.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle + 1;
    else high = middle;
  }
  return points[low]?.[0] === x ? points[low] : null;
}

function grid({ left, right, top, bottom, across, up, rows, columns }, { told }) {
  const drawn = [];
  for (const y of rows) {
    if (up(y) < top - 1) continue;
    drawn.push(drawing("line", { x1: left, x2: right, y1: up(y), y2: up(y), class: "grid" }));
    drawn.push(drawing("text", { x: left - 7, y: up(y) + 4, class: "number end" }, told(y)));
  }
  for (const x of columns) {
    drawn.push(drawing("line", { x1: across(x), x2: across(x), y1: bottom, y2: bottom + 4, class: "grid" }));
    drawn.push(drawing("text", { x: across(x), y: bottom + 17, class: "number middle" }, x >= 10000 ? `${short(x / 1000)}k` : `${x}`));
  }
  return drawn;
}

function curveOf({ points, kind }, { across, up }, mark) {
  const places = thinned(points.map(([x, y]) => [across(x), up(y)]));
  const path = places.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const drawn = [drawing("path", { d: path, class: `line kind${kind}` })];
  if (points.length > DOTS || kind === 3) return drawn;
  const dots = points.map(([x, y]) => drawing("circle", { cx: across(x), cy: up(y), r: x === mark ? 5.5 : 2.8, class: x === mark ? "dot here" : "dot" }));
  return [...drawn, ...dots];
}

/** Of the points within a pixel's width only the lowest and the highest. */
function thinned(places) {
  if (places.length < 1500) return places;
  const found = [];
  let group = [];
  const flush = () => {
    if (!group.length) return;
    const ends = [group.reduce((a, b) => (b[1] < a[1] ? b : a)), group.reduce((a, b) => (b[1] > a[1] ? b : a))];
    found.push(...(ends[0] === ends[1] ? [ends[0]] : ends.sort((a, b) => a[0] - b[0])));
    group = [];
  };
  for (const place of places) {
    if (group.length && place[0] - group[0][0] >= 1) flush();
    group.push(place);
  }
  flush();
  return found;
}

/** The number of the x that is closest to the mouse. */
function nearest(state, event) {
  const all = steps(state);
  if (!all.length) return null;
  const { across } = scales(state);
  let [low, high] = [0, all.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (across(all[middle]) < event.offsetX) low = middle;
    else high = middle;
  }
  return event.offsetX - across(all[low]) < across(all[high]) - event.offsetX ? low : high;
}
