/** How the model's tokenizer takes a text apart, and the merges that put each piece together. */

import { element, section, spoken, step, visible, word } from "./dom.js";
import { growing } from "./talk.js";

const FIRST = "The unbelievable tokenizer: naïve, 日本 and 🙂!";
const PAUSE = 120; // milliseconds after a key, so that not each letter asks the server

export async function mount(root, context) {
  const area = element("textarea", { rows: 2, "aria-label": "a text to take apart", dir: "auto", spellcheck: false });
  area.value = FIRST;
  growing(area);
  const counts = element("p", { class: "quiet", role: "status" });
  const problem = element("p", { class: "problem", role: "alert", hidden: true });
  const shown = element("div", {});
  root.replaceChildren(element("div", { class: "reading" }, area, counts), problem, shown);

  let newest = 0;
  async function look() {
    const mine = ++newest;
    try {
      const found = await context.fetch("page/tokenize", { model: context.model.name, text: area.value });
      if (mine !== newest) return;
      problem.hidden = true;
      counts.textContent = told(found);
      shown.replaceChildren(...(found.tokens.length ? takenApart(found) : []));
    } catch (error) {
      if (mine !== newest) return;
      problem.textContent = visible(error.message);
      problem.hidden = false;
    }
  }
  let pause = null;
  area.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(look, PAUSE);
  });
  context.follow(look);
  await look();
}

function told({ tokens, characters, bytes, vocab_size, merges }) {
  const number = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
  const known = merges ? `${number(vocab_size, "token")} by ${number(merges, "merge")}` : number(vocab_size, "token");
  return `${number(tokens.length, "token")} of ${number(characters, "character")}, ${number(bytes, "byte")} · the tokenizer knows ${known}`;
}

/** The strip of tokens, what is known of the chosen one, and the making of its piece. */
function takenApart(found) {
  const owners = found.pieces.flatMap((piece, i) => Array(piece.tokens).fill(i));
  const facts = element("div", { class: "facts", "aria-live": "polite" });
  const making = element("div", {});
  const strip = element("div", { class: "pieces", role: "radiogroup", "aria-label": "the text, token by token" });
  const chips = found.tokens.map((token, i) =>
    element("button", { type: "button", class: `chip shade${i % 2}`, role: "radio", "aria-label": `token ${i + 1}, ${spoken(token.text)}, id ${token.id}`, click: () => choose(i), keydown: (event) => move(event, i) }, word(token.text), element("span", { class: "id" }, `${token.id}`)),
  );
  let box = null;
  chips.forEach((chip, i) => {
    if (owners[i] !== owners[i - 1]) strip.append((box = element("span", { class: "cut" })));
    box.append(chip);
    if (found.tokens[i].text.endsWith("\n")) strip.append(element("br"));
  });
  function move(event, i) {
    const to = step(event.key, i, chips.length);
    if (to === null) return;
    event.preventDefault();
    choose(to);
    chips[to].focus();
  }
  let piece = null;
  function choose(i) {
    chips.forEach((chip, at) => {
      chip.setAttribute("aria-checked", at === i);
      chip.tabIndex = at === i ? 0 : -1;
      chip.parentElement.classList.toggle("here", owners[at] === owners[i]);
    });
    facts.replaceChildren(...factsOf(found.tokens[i]));
    if (piece !== owners[i]) making.replaceChildren(...makingOf(found, (piece = owners[i]), owners));
  }
  const first = found.pieces.findIndex((each) => each.steps.length > 2);
  choose(Math.max(0, owners.indexOf(Math.max(0, first))));
  return [
    section("Tokens", "A tokenizer first cuts the text into pieces (the frames), then joins bytes within each. Choose a token.", strip, facts),
    section("How the piece came together", "At first each byte is a part of its own. Then, of all neighbours that a merge knows, those whose merge was learned first are joined, until no merge fits.", making),
  ];
}

function factsOf({ id, text, bytes }) {
  const pairs = bytes.match(/../g) ?? [];
  const fact = (name, ...value) => [element("dt", {}, name), element("dd", {}, ...value)];
  return [element("dl", {}, ...fact("token", word(text)), ...fact("id", `${id}`), ...fact(pairs.length === 1 ? "byte" : "bytes", element("code", {}, pairs.join(" "))))];
}

/** The steps of a piece as a ladder: one can go up and down on it. */
function makingOf(found, piece, owners) {
  const { steps, note } = found.pieces[piece];
  if (note) return [element("p", { class: "told" }, note)];
  const bytes = found.tokens.filter((_, i) => owners[i] === piece).map((token) => token.bytes).join("").match(/../g);
  if (!steps.length) return [element("p", { class: "told" }, bytes.length === 1 ? "A single byte: there is nothing to merge." : "No merge fits any two of its bytes: they stay as they are.")];
  const ladder = rungs(bytes, steps);
  const rows = ladder.map(({ parts, joined, rank }, i) =>
    element(
      "li",
      {},
      element("span", { class: "rank" }, rank === null ? "bytes" : `merge ${(rank + 1).toLocaleString("en")}`),
      element("span", { class: "boxes" }, ...parts.map((part, at) => element("span", { class: at === joined ? "box new" : "box" }, wordOf(part)))),
    ),
  );
  const input = element("input", { type: "range", id: "merge-step", min: 0, max: steps.length, value: steps.length, step: 1, input: show });
  const output = element("output", { for: "merge-step" });
  const go = (by, name, sign) => element("button", { type: "button", class: "plain", "aria-label": name, click: () => {
    input.value = Number(input.value) + by;
    show();
  } }, sign);
  function show() {
    const at = Number(input.value);
    const left = ladder[at].parts.length;
    const told = at === 0 ? `${left} bytes` : `after ${at} of ${steps.length} merges: ${left} part${left === 1 ? "" : "s"}`;
    output.textContent = told;
    input.setAttribute("aria-valuetext", told);
    rows.forEach((row, i) => {
      row.className = i === at ? "now" : i > at ? "later" : "";
      if (i > at) row.setAttribute("aria-hidden", true);
      else row.removeAttribute("aria-hidden");
    });
  }
  show();
  const steering = element("div", { class: "row start" }, go(-1, "the merge before", "‹"), go(1, "the next merge", "›"), element("label", { for: "merge-step", class: "unseen" }, "merges"), input, output);
  return [steering, element("ol", { class: "ladder" }, ...rows)];
}

/** What there is after each step: parts as lists of bytes, which one is new, and by which merge. */
function rungs(bytes, steps) {
  let parts = bytes.map((byte) => [byte]);
  const found = [{ parts, joined: null, rank: null }];
  for (const [rank, place] of steps) {
    parts = [...parts.slice(0, place), [...parts[place], ...parts[place + 1]], ...parts.slice(place + 2)];
    found.push({ parts, joined: place, rank });
  }
  return found;
}

/** Bytes as text, where they are whole characters; else by their numbers. */
function wordOf(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes, (byte) => parseInt(byte, 16)));
    return word(visible(text));
  } catch {
    return element("code", { class: "raw" }, bytes.join(" "));
  }
}
