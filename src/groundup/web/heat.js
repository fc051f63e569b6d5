/** Attention of one head as a heat map: rows look at columns; the mask is hatched. */

import { ink, whenColoursChange } from "./colours.js";
import { element, percent, spoken, step } from "./dom.js";

const LARGEST = 26; // pixels of a cell
const NAMED = 13; // from this size on, tokens stand beside their rows and columns
const MARGIN = 82;

/** The heat map of the chosen head; it follows the view, and choosing a row chooses its token. */
export function heatMap(view) {
  const canvas = element("canvas", {
    tabindex: 0,
    role: "application",
    "aria-roledescription": "heat map",
    "aria-label": "attention of this head: rows look at columns; arrow keys move",
    "aria-describedby": "heat-told",
  });
  const told = element("p", { id: "heat-told", class: "told", "aria-live": "polite" });
  const box = element("div", { class: "heat" }, canvas, told);
  const map = { view, box, canvas, told, at: null, count: view.data.tokens.length };
  pointing(map);
  new ResizeObserver(() => drawMap(map)).observe(box);
  whenColoursChange(() => drawMap(map));
  view.follow(() => {
    drawMap(map);
    tellCell(map);
  });
  return box;
}

/** How large things are: the margin with the tokens' names, a cell, the whole. */
function measures({ box, count }) {
  const width = Math.max(240, box.clientWidth || 460);
  const labels = (width - 90) / count >= NAMED ? MARGIN : 2;
  const cell = Math.max(2, Math.min(LARGEST, (width - labels - 4) / count));
  return { labels, cell, side: labels + cell * count + 4, gap: cell > 8 ? 1 : 0 };
}

function drawMap(map) {
  const { view, box, canvas, at } = map;
  const { labels, cell, side, gap } = measures(map);
  const sharp = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(side * sharp);
  canvas.style.width = canvas.style.height = `${side}px`;
  const brush = canvas.getContext("2d");
  brush.scale(sharp, sharp);
  const style = getComputedStyle(box);
  brush.font = `12px ${style.fontFamily}`;
  brush.textBaseline = "middle";
  drawCells(map, brush);
  drawMask(map, brush, style.color);
  brush.fillStyle = brush.strokeStyle = style.color;
  if (labels > 10) drawNames(map, brush);
  brush.lineWidth = 1.5;
  brush.strokeRect(labels - 1, labels + view.token * cell - 1, (view.token + 1) * cell + 1, cell + 1);
  if (at) {
    brush.lineWidth = 2.5;
    brush.strokeRect(labels + at[1] * cell, labels + at[0] * cell, cell - gap, cell - gap);
  }
}

function drawCells(map, brush) {
  const { view, count } = map;
  const { labels, cell, gap } = measures(map);
  const colour = ink().join(",");
  for (let row = 0; row < count; row++) {
    for (let column = 0; column <= row; column++) {
      const w = view.weight(view.layer, view.head, row, column);
      brush.fillStyle = `rgba(${colour},${0.05 + 0.95 * Math.sqrt(w)})`;
      brush.fillRect(labels + column * cell, labels + row * cell, cell - gap, cell - gap);
    }
  }
}

/** Hatch what lies ahead of each row, the half above the diagonal. */
function drawMask(map, brush, colour) {
  const { labels, cell } = measures(map);
  const size = map.count * cell;
  brush.save();
  brush.beginPath();
  brush.moveTo(labels + cell, labels);
  for (let i = 0; i < map.count; i++) {
    brush.lineTo(labels + (i + 1) * cell, labels + i * cell);
    brush.lineTo(labels + (i + 1) * cell, labels + (i + 1) * cell);
  }
  brush.lineTo(labels + size, labels);
  brush.closePath();
  brush.clip();
  brush.globalAlpha = 0.22;
  brush.strokeStyle = colour;
  brush.lineWidth = 1;
  brush.beginPath();
  for (let x = -size; x < size; x += 6) {
    brush.moveTo(labels + x, labels);
    brush.lineTo(labels + x + size, labels + size);
  }
  brush.stroke();
  brush.restore();
}

function drawNames(map, brush) {
  const { view } = map;
  const { labels, cell } = measures(map);
  view.data.tokens.forEach((token, i) => {
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

/** Say in words what is pointed at. */
function tellCell({ view, told, at }) {
  if (!at) {
    told.textContent = "Rows look at columns: the stronger, the more. The hatched half lies ahead: masked.";
    return;
  }
  const [row, column] = at.map((i) => spoken(view.word(view.data.tokens[i].id)));
  const w = view.weight(view.layer, view.head, at[0], at[1]);
  told.textContent =
    at[1] > at[0]
      ? `${row} (${at[0] + 1}) cannot look at ${column} (${at[1] + 1}), which comes later: masked`
      : `${row} (${at[0] + 1}) looks at ${column} (${at[1] + 1}): ${percent(w)}`;
}

/** Let the mouse and the arrow keys point at cells. */
function pointing(map) {
  const { view, canvas, count } = map;
  const point = (to) => {
    map.at = to;
    drawMap(map);
    tellCell(map);
  };
  const under = (event) => {
    const { labels, cell } = measures(map);
    const place = [event.offsetY, event.offsetX].map((x) => Math.floor((x - labels) / cell));
    return place.every((i) => i >= 0 && i < count) ? place : null;
  };
  canvas.addEventListener("pointermove", (event) => point(under(event)));
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("blur", () => point(null));
  canvas.addEventListener("click", (event) => {
    const place = under(event);
    if (place) view.choose({ token: place[0] });
  });
  canvas.addEventListener("keydown", (event) => {
    const [row, column] = map.at ?? [view.token, view.token];
    const to = step(event.key, row * count + column, count * count, count);
    if (to === null) return;
    event.preventDefault();
    const sideways = ["ArrowLeft", "ArrowRight"].includes(event.key);
    if (sideways && Math.floor(to / count) !== row) return;
    point([Math.floor(to / count), to % count]);
  });
}

function shortened(text, longest) {
  const letters = [...text];
  return letters.length > longest ? `${letters.slice(0, longest - 1).join("")}…` : text;
}
