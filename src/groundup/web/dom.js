/** How pages make elements: what anybody wrote becomes text, never markup. */

const SIGNS = { " ": "·", "\n": "↵", "\t": "→" };

// C0 but tab and line feed, DEL, C1; line separators, directions of writing; halves of characters.
const STEERING =
  /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Text in which what would steer a terminal, or turn letters around, stands by its code. */
export function visible(text) {
  return text.replace(STEERING, (sign) => {
    if (sign === "\r") return "\\r";
    const code = sign.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
  });
}

/** An HTML element; functions among the attributes listen to events, strings among children are text. */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
export function drawing(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** A token: its spaces and line ends are seen, and its direction of writing is its own. */
export function word(text) {
  const made = element("bdi", { class: text.trim() ? "word" : "word blank" });
  for (const part of text.split(/([ \n\t])/)) {
    if (SIGNS[part]) made.append(element("span", { class: "sign" }, SIGNS[part]));
    else if (part) made.append(part);
  }
  if (!text) made.append("∅");
  return made;
}

/** The same where only text can stand: in labels that are read aloud. */
export function spoken(text) {
  return `“${text.replace(/[ \n\t]/g, (sign) => SIGNS[sign]) || "∅"}”`;
}

/** A probability for people. */
export function percent(p) {
  if (p >= 0.0995) return `${(100 * p).toFixed(0)}%`;
  if (p >= 0.001) return `${(100 * p).toFixed(1)}%`;
  return p > 0 ? "<0.1%" : "0%";
}

/** A section of a page: a heading, a sentence about it, and what there is to see. */
export function section(title, about, ...children) {
  return element("section", {}, element("h2", {}, title), element("p", { class: "quiet" }, about), ...children);
}

/** How many steps an arrow key goes in a list (or a grid of so many columns); null for other keys. */
export function step(key, at, count, columns = 1) {
  const to = {
    ArrowLeft: at - 1,
    ArrowRight: at + 1,
    ArrowUp: at - columns,
    ArrowDown: at + columns,
    Home: 0,
    End: count - 1,
  }[key];
  return to === undefined ? null : Math.max(0, Math.min(count - 1, to));
}
