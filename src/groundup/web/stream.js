/** The residual stream's length from layer to layer, and the chosen token's neighbours. */

import { barList } from "./bars.js";
import { element, section } from "./dom.js";

export function streamSection(view) {
  const { data } = view;
  const body = element("tbody");
  const most = (rows) => Math.max(1e-9, ...rows.map((row) => row[view.token]));
  const cell = (value, scale, kind = "") => {
    const fill = element("span", { class: `fill ${kind}` });
    fill.style.width = `${(100 * value) / scale}%`;
    return element("td", {}, element("span", { class: "track" }, fill), element("span", { class: "number" }, value.toPrecision(3)));
  };
  view.follow(() => {
    const { norms } = data;
    const scale = most(norms.stream);
    const parts = Math.max(most(norms.attention), most(norms.feed_forward));
    body.replaceChildren(
      ...norms.stream.map((row, i) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, i === 0 ? "embedding" : `layer ${i}`),
          i === 0 ? element("td", { class: "quiet" }, "–") : cell(norms.attention[i - 1][view.token], parts, "hollow"),
          i === 0 ? element("td", { class: "quiet" }, "–") : cell(norms.feed_forward[i - 1][view.token], parts, "hollow"),
          cell(row[view.token], scale),
        ),
      ),
    );
  });
  const heads = ["", "attention adds", "feed-forward adds", "length of the sum"];
  return section(
    "How the stream grows",
    "A token travels through the layers as a vector. Attention and the feed-forward network each add " +
      "a vector to it; these are their lengths.",
    element(
      "table",
      { class: "stream" },
      element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
      body,
    ),
  );
}

export function neighboursSection(view) {
  const { data } = view;
  const bars = barList("tokens with similar embeddings");
  view.follow(() => {
    const near = data.neighbours[data.tokens[view.token].id];
    bars.show(near.map(([id, cosine]) => ({ text: view.word(id), value: Math.max(0, cosine), label: cosine.toFixed(2) })));
  });
  return section(
    "Who are its neighbours?",
    "Before any layer, every token is a vector that was learned. These tokens' vectors point most " +
      "nearly the same way as the chosen one's (1.00 would be exactly).",
    bars.list,
  );
}
