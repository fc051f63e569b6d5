/** The text: each token coloured, and underlined, by how surprised the model was; one is chosen. */

import { element, percent, section, spoken, step, word } from "./dom.js";
import { distribution } from "./sampling.js";

export function tokensSection(view) {
  const { data } = view;
  const most = Math.log(data.vocab_size); // the surprise of who knows nothing
  const chips = data.tokens.map((token, i) => {
    return element(
      "button",
      {
        type: "button",
        class: token.surprise === null ? "token first" : "token",
        role: "radio",
        click: () => view.choose({ token: i }),
        keydown: (event) => {
          const to = step(event.key, i, chips.length);
          if (to === null) return;
          event.preventDefault();
          view.choose({ token: to });
          chips[to].focus();
        },
      },
      word(view.word(token.id)),
    );
  });
  const ghost = element("span", { class: "ghost", title: "what the model would write next" });
  const strip = element("div", { class: "tokens", role: "radiogroup", "aria-label": "the text, token by token" });
  data.tokens.forEach((token, i) => {
    strip.append(chips[i]);
    if (view.word(token.id).endsWith("\n")) strip.append(element("br"));
  });
  strip.append(ghost);
  const told = element("p", { class: "told", id: "story", "aria-live": "polite" });
  view.follow(() => {
    ghost.replaceChildren(word(view.word(data.next.at(-1).ids[0])));
    chips.forEach((chip, i) => {
      const token = data.tokens[i];
      const level = token.surprise === null ? 0 : Math.min(1, token.surprise / most);
      chip.style.setProperty("--surprise", level.toFixed(3));
      chip.title = surpriseOf(token);
      chip.setAttribute("aria-label", `token ${i + 1}, ${spoken(view.word(token.id))}, ${surpriseOf(token)}`);
      chip.setAttribute("aria-checked", i === view.token);
      chip.tabIndex = i === view.token ? 0 : -1;
    });
    told.replaceChildren(...story(view));
  });
  return section(
    "How surprised was it?",
    "The stronger a token's colour and the thicker its line, the less the model expected it. Choose one: " +
      "everything below is about that token, and about what the model says after it.",
    strip,
    legend(),
    told,
  );
}

/** A bar that stays in sight: which token is chosen, and the way to its neighbours. */
export function compass(view) {
  const count = view.data.tokens.length;
  const name = element("span", { class: "here" });
  const go = (by, label, sign) =>
    element("button", { type: "button", class: "plain", "aria-label": label, click: () => {
      view.choose({ token: Math.max(0, Math.min(count - 1, view.token + by)) });
    } }, sign);
  view.follow(() => {
    const at = element("span", { class: "quiet" }, `, token ${view.token + 1} of ${count}`);
    name.replaceChildren("after ", word(view.word(view.data.tokens[view.token].id)), at);
  });
  const [back, on] = [go(-1, "the token before", "‹"), go(1, "the token after", "›")];
  return element("nav", { class: "compass", "aria-label": "chosen token" }, back, name, on, ...(view.live ? [view.live.bar] : []));
}

function surpriseOf({ surprise, rank }) {
  if (surprise === null) return "the first token: nothing came before it";
  const place = rank === 1 ? "its first choice" : `choice ${rank.toLocaleString("en")}`;
  return `surprise ${surprise.toFixed(2)}, probability ${percent(Math.exp(-surprise))}, ${place}`;
}

function legend() {
  const marks = [0, 0.25, 0.5, 0.75, 1].map((level) => {
    const mark = element("span", { class: "token mark" }, "  ");
    mark.style.setProperty("--surprise", level);
    return mark;
  });
  return element("p", { class: "key quiet" }, "expected ", ...marks, " as if it knew nothing");
}

/** One sentence or two about the chosen token. */
function story(view) {
  const { data, token } = view;
  const next = data.next[token];
  const first = distribution(next).probabilities[0];
  const say = (id) => word(view.word(id));
  const told = ["Having read up to ", say(data.tokens[token].id), ", the model expects ", say(next.ids[0]), ` (${percent(first)})`];
  const follows = data.tokens[token + 1];
  if (!follows) return [...told, ". There the text ends."];
  if (follows.rank === 1) return [...told, ", and so it is: ", feeling(follows), "."];
  const place = `, its choice ${follows.rank.toLocaleString("en")} (${percent(Math.exp(-follows.surprise))}): `;
  return [...told, ". The text goes on with ", say(follows.id), place, feeling(follows), "."];
}

function feeling({ surprise }) {
  const p = Math.exp(-surprise);
  if (p >= 0.5) return "just as expected";
  if (p >= 0.1) return "no great surprise";
  return p >= 0.01 ? "a surprise" : "a great surprise";
}
