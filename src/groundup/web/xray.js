/** The X-ray of a model that reads a text: `mount(root, data)`, data being what `XRay.json()` says. */

import { attentionSection, unpacked } from "./attention.js";
import { element } from "./dom.js";
import { lensSection } from "./lens.js";
import { nextSection } from "./next.js";
import { partsSection } from "./parts.js";
import { neighboursSection, streamSection } from "./stream.js";
import { compass, tokensSection } from "./tokens.js";

/** Show an X-ray within an element; what it held before is gone. */
export function mount(root, data) {
  const view = viewOf(data);
  root.replaceChildren(
    tokensSection(view),
    compass(view),
    element("div", { class: "two" }, nextSection(view), lensSection(view)),
    partsSection(view),
    attentionSection(view),
    element("div", { class: "two" }, streamSection(view), neighboursSection(view)),
  );
  view.choose({});
  return view;
}

/** What is shown: the data, what is chosen, and who wants to know when that changes. */
function viewOf(data) {
  const followers = [];
  const token = data.tokens.length - 1;
  const heads = data.changes.map((change, i) => [change.head === null ? Infinity : change.effect[token], i]);
  const [, part] = heads.reduce((best, each) => (each[0] < best[0] ? each : best));
  const { layer, head } = data.changes[part];
  return {
    data,
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
  };
}
