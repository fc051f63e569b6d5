/** The X-ray of a model that reads a text: `mount(root, data)`, data being what `XRay.json()` says. */

import { attentionSection, unpacked } from "./attention.js";
import { element } from "./dom.js";
import { lensSection } from "./lens.js";
import { nextSection } from "./next.js";
import { partsSection } from "./parts.js";
import { neighboursSection, streamSection } from "./stream.js";
import { compass, tokensSection } from "./tokens.js";

/**
 * Show an X-ray within an element; what it held before is gone. `live` is what a page has that can
 * still ask the model (`live.js`).
 */
export function mount(root, data, live = null) {
  const view = viewOf(data, live);
  root.replaceChildren(
    tokensSection(view),
    ...(live ? [live.story] : []),
    compass(view),
    element("div", { class: "two" }, nextSection(view), lensSection(view)),
    partsSection(view),
    attentionSection(view),
    element("div", { class: "two" }, streamSection(view), neighboursSection(view)),
  );
  view.choose({});
  return view;
}

/** The head without which the answer after a token loses most, as a number among the changes. */
export function strongest({ changes }, token) {
  const heads = changes.map((change, i) => [change.head === null ? Infinity : (change.effect?.[token] ?? 0), i]);
  return heads.reduce((best, each) => (each[0] < best[0] ? each : best))[1];
}

/** What is shown: the data, what is chosen, and who wants to know when that changes. */
function viewOf(data, live) {
  const followers = [];
  const token = data.tokens.length - 1;
  const part = strongest(data, token);
  const { layer, head } = data.changes[part];
  return {
    data,
    live,
    weight: unpacked(data),
    token,
    part,
    layer,
    head,
    word: (id) => data.words[id],
    follow: (draw) => followers.push(draw),
    choose(changes) {
      Object.assign(this, changes);
      for (const draw of followers) draw();
    },
    /** Show other numbers of the same text. */
    update({ words = {}, ...fields }) {
      Object.assign(data, fields);
      Object.assign(data.words, words);
      this.weight = unpacked(data);
      this.choose({});
    },
  };
}
