/** The logit lens: what the model would have said after each layer, down the stack. */

import { element, percent, section, word } from "./dom.js";

export function lensSection(view) {
  const { data } = view;
  const body = element("tbody");
  const about = { class: "stack", tabindex: 0, role: "region", "aria-label": "layer by layer" };
  view.follow(() => {
    const answer = data.next[view.token].ids[0];
    body.replaceChildren(
      ...data.lens.map((lens, layer) => {
        const last = layer === data.lens.length - 1;
        const rank = lens.rank[view.token];
        const cells = lens.guesses[view.token].map(([id, p]) => {
          const fill = element("span", { class: "fill" });
          fill.style.width = `${100 * p}%`;
          return element(
            "td",
            { class: id === answer ? "mark" : "" },
            word(view.word(id)),
            element("span", { class: "track" }, fill),
            element("span", { class: "number" }, percent(p)),
          );
        });
        const place = element("td", { class: "rank" }, rank === 1 ? "first" : rank.toLocaleString("en"));
        return element("tr", {}, element("th", { scope: "row" }, last ? `${layer + 1} = it says` : `${layer + 1}`), place, ...cells);
      }),
    );
  });
  const heads = ["after layer", "the answer is", "would say", "or", "or", "or", "or"];
  const guesses = data.lens[0].guesses[0].length;
  return section(
    "When did it know?",
    "Each layer only adds to what is there, so one can ask after every layer what the model would " +
      "say if it were the last. The answer that it gives in the end is marked.",
    scrolled(
      element(
        "div",
        about,
        element(
          "table",
          { class: "lens" },
          element("thead", {}, element("tr", {}, ...heads.slice(0, 2 + guesses).map((head) => element("th", { scope: "col" }, head)))),
          body,
        ),
      ),
    ),
  );
}

/** A box that shows its end first, once it is part of the page: the last layers say most. */
function scrolled(box) {
  requestAnimationFrame(() => {
    box.scrollTop = box.scrollHeight;
  });
  return box;
}
