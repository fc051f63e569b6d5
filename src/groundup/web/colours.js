/** Light and dark: what the page is, and who wants to know when that changes. */

const system = matchMedia("(prefers-color-scheme: dark)");
const CHANGED = "colourschange";

/** Whether the page is dark: as somebody chose here, or as the system is. */
export function isDark() {
  const chosen = document.documentElement.style.colorScheme;
  return chosen ? chosen === "dark" : system.matches;
}

/** Make the page "light" or "dark", or, with "", what the system is. */
export function setColours(scheme) {
  document.documentElement.style.colorScheme = scheme;
  document.dispatchEvent(new Event(CHANGED));
}

/** Redraw canvases when the page turns light or dark. */
export function whenColoursChange(draw) {
  system.addEventListener("change", draw);
  document.addEventListener(CHANGED, draw);
}

/** The colour of the page's drawings, as numbers: canvases know no style sheets. */
export function ink() {
  return isDark() ? [124, 196, 238] : [0, 92, 150];
}
