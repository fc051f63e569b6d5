/** Attention of one head: arcs from the chosen token to those it looks at, beside the heat map. */

import { drawing, element, percent, section, word } from "./dom.js";
import { heatMap } from "./heat.js";

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
  const { tokens } = view.data;
  const canvas = drawing("svg", { "aria-hidden": true });
  canvas.style.width = `${ARCS}px`;
  canvas.style.height = `${tokens.length * ROW}px`;
  const rows = tokens.map((token, i) => {
    const fill = element("span", { class: "fill" });
    const number = element("span", { class: "number" });
    const name = element("span", { class: "name" }, word(view.word(token.id)));
    const track = element("span", { class: "track" }, fill);
    const line = element("li", { click: () => view.choose({ token: i }) }, name, track, number);
    return { line, fill, number };
  });
  const list = element("ol", { class: "looks" }, ...rows.map((row) => row.line));
  const box = element("div", { class: "arcs", tabindex: 0, role: "region", "aria-label": "where the chosen token looks" }, canvas, list);
  view.follow(() => {
    const { token, layer, head } = view;
    canvas.replaceChildren(...curves(view));
    rows.forEach(({ line, fill, number }, i) => {
      const w = view.weight(layer, head, token, i);
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

/** The arcs: faint ones of all tokens that look far, strong ones of the chosen token. */
function curves({ data, weight, token, layer, head }) {
  const drawn = [];
  for (let row = 0; row < data.tokens.length; row++) {
    for (let column = 0; column < row; column++) {
      const w = weight(layer, head, row, column);
      if (row !== token && w > FAINT) drawn.push(curve(row, column, 2 * w, "faint"));
    }
  }
  for (let column = 0; column < token; column++) {
    const w = weight(layer, head, token, column);
    if (w > 0.004) drawn.push(curve(token, column, 0.6 + 9 * w, "strong"));
  }
  const self = 1.5 + 5 * weight(layer, head, token, token);
  drawn.push(drawing("circle", { cx: ARCS - 6, cy: (token + 0.5) * ROW, r: self, class: "self" }));
  return drawn;
}

function curve(from, to, width, kind) {
  const [y, z] = [from, to].map((i) => (i + 0.5) * ROW);
  const bend = ARCS - 8 - Math.min(ARCS - 16, 14 + 9 * Math.sqrt(Math.abs(from - to)) * 2);
  const shape = `M${ARCS - 6} ${y}C${bend} ${y} ${bend} ${z} ${ARCS - 6} ${z}`;
  return drawing("path", { d: shape, class: kind, "stroke-width": width });
}
