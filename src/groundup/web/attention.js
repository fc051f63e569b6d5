/** Attention of one head: arcs from the chosen token to those it looks at, and the whole as a heat map. */

import { drawing, element, percent, section, spoken, step, word } from "./dom.js";

const ROW = 26;
const ARCS = 96;
const FAINT = 0.2;

/** Unpack the weights: a function of layer, head, row (who looks) and column (at whom). */
export function unpacked({ attention, n_heads, tokens }) {
  const bytes = Uint8Array.from(atob(attention.data), (letter) => letter.charCodeAt(0));
  const wide = new DataView(bytes.buffer);
  const number = attention.bits === 16 ? (i) => wide.getUint16(2 * i, true) : (i) => bytes[i];
  const most = 2 ** attention.bits - 1;
  const size = (tokens.length * (tokens.length + 1)) / 2;
  return (layer, head, row, column) => {
    if (column > row) return 0;
    return number((layer * n_heads + head) * size + (row * (row + 1)) / 2 + column) / most;
  };
}

/** The colour of the page's drawings, as numbers: canvases know no style sheets. */
export function ink() {
  return matchMedia("(prefers-color-scheme: dark)").matches ? [124, 196, 238] : [0, 92, 150];
}

/** Redraw canvases when the page turns light or dark. */
export function whenColoursChange(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

export function attentionSection(view) {
  const title = element("h3", { id: "head-title" });
  view.follow(() => {
    title.textContent = `Layer ${view.layer + 1}, head ${view.head + 1}`;
  });
  return section(
    "Who looks at whom?",
    "In each layer, several heads carry something from earlier tokens to later ones. Where a head " +
      "looks is one row of numbers that add up to 100%. Nobody can look ahead: that is the mask.",
    title,
    element("div", { class: "two" }, arcs(view), heatMap(view)),
  );
}

function arcs(view) {
  const { data, weight } = view;
  const count = data.tokens.length;
  const canvas = drawing("svg", { "aria-hidden": true });
  canvas.style.width = `${ARCS}px`;
  canvas.style.height = `${count * ROW}px`;
  const rows = data.tokens.map((token, i) => {
    const fill = element("span", { class: "fill" });
    const number = element("span", { class: "number" });
    const name = element("span", { class: "name" }, word(view.word(token.id)));
    const track = element("span", { class: "track" }, fill);
    const line = element("li", { click: () => view.choose({ token: i }) }, name, track, number);
    return { line, fill, number };
  });
  const list = element("ol", { class: "looks" }, ...rows.map((row) => row.line));
  const box = element("div", { class: "arcs", tabindex: 0, role: "region", "aria-label": "where the chosen token looks" }, canvas, list);

  const path = (from, to, width, kind) => {
    const [y, z] = [from, to].map((i) => (i + 0.5) * ROW);
    const bend = ARCS - 8 - Math.min(ARCS - 16, 14 + 9 * Math.sqrt(Math.abs(from - to)) * 2);
    const shape = `M${ARCS - 6} ${y}C${bend} ${y} ${bend} ${z} ${ARCS - 6} ${z}`;
    return drawing("path", { d: shape, class: kind, "stroke-width": width });
  };
  view.follow(() => {
    const { token, layer, head } = view;
    const drawn = [];
    for (let row = 0; row < count; row++) {
      for (let column = 0; column < row; column++) {
        const w = weight(layer, head, row, column);
        if (row !== token && w > FAINT) drawn.push(path(row, column, 2 * w, "faint"));
      }
    }
    for (let column = 0; column < token; column++) {
      const w = weight(layer, head, token, column);
      if (w > 0.004) drawn.push(path(token, column, 0.6 + 9 * w, "strong"));
    }
    const self = 1.5 + 5 * weight(layer, head, token, token);
    drawn.push(drawing("circle", { cx: ARCS - 6, cy: (token + 0.5) * ROW, r: self, class: "self" }));
    canvas.replaceChildren(...drawn);
    rows.forEach(({ line, fill, number }, i) => {
      const w = weight(layer, head, token, i);
      fill.style.width = `${100 * w}%`;
      number.textContent = i > token ? "ahead" : percent(w);
      line.className = i === token ? "mark" : i > token ? "ahead" : "";
    });
    const y = token * ROW;
    if (y < box.scrollTop || y > box.scrollTop + box.clientHeight - ROW) {
      box.scrollTop = y - box.clientHeight / 2;
    }
  });
  return box;
}

function heatMap(view) {
  const { data, weight } = view;
  const count = data.tokens.length;
  const canvas = element("canvas", {
    tabindex: 0,
    role: "application",
    "aria-roledescription": "heat map",
    "aria-label": "attention of this head: rows look at columns; arrow keys move",
    "aria-describedby": "heat-told",
  });
  const told = element("p", { id: "heat-told", class: "told", "aria-live": "polite" });
  const box = element("div", { class: "heat" }, canvas, told);
  let at = null;

  function geometry() {
    const width = Math.max(240, box.clientWidth || 460);
    const labels = (width - 90) / count >= 13 ? 82 : 2;
    const cell = Math.max(2, Math.min(26, (width - labels - 4) / count));
    return { labels, cell, side: labels + cell * count + 4 };
  }
  function draw() {
    const { labels, cell, side } = geometry();
    const sharp = window.devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(side * sharp);
    canvas.style.width = canvas.style.height = `${side}px`;
    const brush = canvas.getContext("2d");
    brush.scale(sharp, sharp);
    const style = getComputedStyle(box);
    const [colour, text] = [ink().join(","), style.color];
    const gap = cell > 8 ? 1 : 0;
    brush.font = `12px ${style.fontFamily}`;
    brush.textBaseline = "middle";
    for (let row = 0; row < count; row++) {
      for (let column = 0; column < count; column++) {
        const [x, y] = [labels + column * cell, labels + row * cell];
        if (column > row) continue;
        const w = weight(view.layer, view.head, row, column);
        brush.fillStyle = `rgba(${colour},${0.05 + 0.95 * Math.sqrt(w)})`;
        brush.fillRect(x, y, cell - gap, cell - gap);
      }
    }
    mask(brush, labels, cell, text);
    brush.fillStyle = brush.strokeStyle = text;
    if (labels > 10) names(brush, labels, cell);
    brush.lineWidth = 1.5;
    brush.strokeRect(labels - 1, labels + view.token * cell - 1, (view.token + 1) * cell + 1, cell + 1);
    if (at) {
      brush.lineWidth = 2.5;
      brush.strokeRect(labels + at[1] * cell, labels + at[0] * cell, cell - gap, cell - gap);
    }
  }
  function mask(brush, labels, cell, colour) {
    brush.save();
    brush.beginPath();
    brush.moveTo(labels + cell, labels);
    for (let i = 0; i < count; i++) {
      brush.lineTo(labels + (i + 1) * cell, labels + i * cell);
      brush.lineTo(labels + (i + 1) * cell, labels + (i + 1) * cell);
    }
    brush.lineTo(labels + count * cell, labels);
    brush.closePath();
    brush.clip();
    brush.globalAlpha = 0.22;
    brush.strokeStyle = colour;
    brush.lineWidth = 1;
    brush.beginPath();
    for (let x = -count * cell; x < count * cell; x += 6) {
      brush.moveTo(labels + x, labels);
      brush.lineTo(labels + x + count * cell, labels + count * cell);
    }
    brush.stroke();
    brush.restore();
  }
  function names(brush, labels, cell) {
    data.tokens.forEach((token, i) => {
      const text = shortened(spoken(view.word(token.id)).slice(1, -1), 10);
      brush.globalAlpha = i === view.token ? 1 : 0.75;
      brush.textAlign = "right";
      brush.fillText(text, labels - 6, labels + (i + 0.5) * cell);
      brush.save();
      brush.translate(labels + (i + 0.5) * cell, labels - 6);
      brush.rotate(-Math.PI / 2);
      brush.textAlign = "left";
      brush.fillText(text, 0, 0);
      brush.restore();
    });
    brush.globalAlpha = 1;
  }
  function tell() {
    if (!at) {
      told.textContent = "Rows look at columns: the stronger, the more. The hatched half lies ahead: masked.";
      return;
    }
    const [row, column] = at.map((i) => spoken(view.word(data.tokens[i].id)));
    const w = weight(view.layer, view.head, at[0], at[1]);
    told.textContent =
      at[1] > at[0]
        ? `${row} (${at[0] + 1}) cannot look at ${column} (${at[1] + 1}), which comes later: masked`
        : `${row} (${at[0] + 1}) looks at ${column} (${at[1] + 1}): ${percent(w)}`;
  }
  function point(to) {
    at = to;
    draw();
    tell();
  }
  function under(event) {
    const { labels, cell } = geometry();
    const place = [event.offsetY, event.offsetX].map((x) => Math.floor((x - labels) / cell));
    return place.every((i) => i >= 0 && i < count) ? place : null;
  }
  canvas.addEventListener("pointermove", (event) => point(under(event)));
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("click", (event) => {
    const place = under(event);
    if (place) view.choose({ token: place[0] });
  });
  canvas.addEventListener("keydown", (event) => {
    const [row, column] = at ?? [view.token, view.token];
    const to = step(event.key, row * count + column, count * count, count);
    if (to === null) return;
    event.preventDefault();
    const sideways = ["ArrowLeft", "ArrowRight"].includes(event.key);
    if (sideways && Math.floor(to / count) !== row) return;
    point([Math.floor(to / count), to % count]);
  });
  canvas.addEventListener("blur", () => point(null));
  new ResizeObserver(draw).observe(box);
  whenColoursChange(draw);
  view.follow(() => {
    draw();
    tell();
  });
  return box;
}

function shortened(text, longest) {
  const letters = [...text];
  return letters.length > longest ? `${letters.slice(0, longest - 1).join("")}…` : text;
}
