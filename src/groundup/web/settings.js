/** How the model writes: sliders and a seed; and a request with them as curl and as Python. */

import { element, visible } from "./dom.js";
import { hasKey } from "./asking.js";
import { sliderBox } from "./sliders.js";

const off = (x, digits = 2) => (x === 0 ? "off" : x.toFixed(digits));
const SLIDERS = [
  { name: "temperature", label: "temperature", min: 0, max: 2, step: 0.05, start: 0.7, told: (x) => (x === 0 ? "0: likeliest" : x.toFixed(2)) },
  { name: "top_k", label: "top-k", min: 0, max: 100, step: 1, start: 0, told: (x) => off(x, 0) },
  { name: "top_p", label: "top-p", min: 0.05, max: 1, step: 0.05, start: 1, told: (x) => (x === 1 ? "off" : x.toFixed(2)) },
  { name: "min_p", label: "min-p", min: 0, max: 0.5, step: 0.01, start: 0, told: (x) => off(x) },
  { name: "max_tokens", label: "length", min: 8, max: 1024, step: 8, start: 256, told: (x) => `${x} tokens` },
];

/** The box of settings; `sampling()` is what a request says of them, a seed for each included. */
export function samplingBox(context) {
  const sliders = sliderBox(SLIDERS, () => {}, { prefix: "chat-", reset: "as at first" });
  const longest = sliders.box.querySelector("#chat-max_tokens");
  const seed = element("input", { type: "number", id: "chat-seed", min: 0, max: 2 ** 31 - 1, step: 1, placeholder: "another each time" });
  const row = element("div", { class: "slider" }, element("label", { for: "chat-seed" }, "seed"), seed);
  sliders.box.lastChild.before(row);
  function fit() {
    const most = Math.max(8, Math.floor(Math.min(1024, context.model.context_length - 8) / 8) * 8);
    longest.max = most;
    sliders.set({ max_tokens: Math.min(256, most) });
  }
  function sampling() {
    const found = sliders.values();
    const said = { max_tokens: found.max_tokens, temperature: found.temperature };
    if (found.temperature === 0) return said;
    if (found.top_k > 0) said.top_k = Math.min(found.top_k, context.model.vocab_size);
    if (found.top_p < 1) said.top_p = found.top_p;
    if (found.min_p > 0) said.min_p = found.min_p;
    said.seed = seed.value === "" ? Math.floor(Math.random() * 2 ** 31) : Math.max(0, Math.floor(Number(seed.value)));
    return said;
  }
  fit();
  context.follow(fit);
  return { box: sliders.box, sampling };
}

const OWN = ["top_k", "min_p"]; // which OpenAI's own client knows by extra_body only

/** The request as a line for a shell. */
export function asCurl(path, body) {
  const key = hasKey() ? ` \\\n  -H "Authorization: Bearer $GROUNDUP_API_KEY"` : "";
  const json = plain(JSON.stringify(body, null, 2)).replaceAll("'", "'\\''");
  return `curl ${new URL(path, location.href).href}${key} \\\n  -H "Content-Type: application/json" \\\n  -d '${json}'`;
}

/** The request in Python, by OpenAI's client. */
export function asPython(path, body) {
  const method = path.includes("chat") ? "chat.completions" : "completions";
  const key = hasKey() ? 'os.environ["GROUNDUP_API_KEY"]' : '"none needed"';
  const given = Object.entries(body).filter(([name]) => !OWN.includes(name) && name !== "stream_options");
  const lines = given.map(([name, value]) => `    ${name}=${python(value)},`);
  const own = Object.entries(body).filter(([name]) => OWN.includes(name));
  if (own.length) lines.push(`    extra_body=${python(Object.fromEntries(own))},`);
  const piece = path.includes("chat") ? "part.choices[0].delta.content" : "part.choices[0].text";
  return [
    ...(hasKey() ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(new URL("v1", location.href).href)}, api_key=${key})`,
    `answer = client.${method}.create(`,
    ...lines,
    ")",
    "for part in answer:",
    `    print(${piece} or "", end="", flush=True)`,
  ].join("\n");
}

/** A value as Python writes it. */
function python(value) {
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, each]) => `${python(name)}: ${python(each)}`).join(", ")}}`;
  }
  return plain(JSON.stringify(value));
}

/** Text of JSON in which every character that steers stands by its code, which means the same. */
function plain(json) {
  return json.replace(/[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Show something above the page, with a button that closes it. */
export function overlay(title, ...children) {
  const close = element("button", { type: "button", class: "plain", click: () => dialog.close() }, "Close");
  const head = element("div", { class: "row" }, element("h2", {}, visible(title)), close);
  const dialog = element("dialog", { class: "sheet", "aria-label": visible(title), close: () => dialog.remove() }, head, ...children);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** A button that copies a text, and says that it has. */
export function copyButton(text, label = "Copy") {
  const button = element("button", { type: "button", class: "plain", click: async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it, and copy"; // not everywhere may a page do it
    }
    setTimeout(() => (button.textContent = label), 1500);
  } }, label);
  return button;
}
