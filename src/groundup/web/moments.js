/** What a snapshot of a run says of a text: as the X-ray's modules draw it, and as single numbers. */

/** What the modules of the X-ray draw: one snapshot's numbers, and what is chosen of them. */
export function viewOf(first) {
  const followers = [];
  return {
    data: { ...first },
    prefix: "time-",
    weight: first.weight,
    token: Math.max(0, first.tokens.length - 2), // so that there is something that follows
    ...bestHead(first),
    word(id) {
      return this.data.words[id];
    },
    follow: (draw) => followers.push(draw),
    redraw: () => followers.forEach((draw) => draw()),
    chosen: () => {},
    choose(changes) {
      Object.assign(this, changes);
      this.redraw();
      this.chosen();
    },
  };
}

/** Which token is followed, and where it stands with a snapshot. */
export function standing(state, found) {
  const { token } = state.view;
  const follows = found.tokens[token + 1];
  if (follows && !state.own) return { id: follows.id, rank: follows.rank, p: Math.exp(-follows.surprise) };
  const [watched] = found.watched;
  if (!watched) return { id: state.picked, rank: null, p: null };
  return { id: state.picked, rank: watched.ranks[token], p: Math.exp(watched.logs[token]) };
}

/** The mean surprise of the text's tokens, the first one apart. */
export function surprise({ tokens }) {
  const told = tokens.slice(1).map((token) => token.surprise);
  return told.length ? told.reduce((sum, x) => sum + x, 0) / told.length : null;
}

/** Places of tokens that were there before, with the place after the newest of those. */
export function repeated(tokens) {
  const found = [];
  const before = new Map();
  tokens.forEach(({ id }, i) => {
    if (before.has(id)) found.push([i, before.get(id) + 1]);
    before.set(id, i);
  });
  return found;
}

/** How much of its attention a head has for what followed the same token before: induction. */
export function copying({ weight }, repeats, layer, head) {
  return repeats.reduce((sum, [row, column]) => sum + weight(layer, head, row, column), 0) / repeats.length;
}

/** The head that copies most; of a text without repetitions the last layer's first one. */
export function bestHead(found) {
  const repeats = repeated(found.tokens);
  let best = { layer: found.n_layers - 1, head: 0, value: 0 };
  for (let layer = 0; repeats.length && layer < found.n_layers; layer++) {
    for (let head = 0; head < found.n_heads; head++) {
      const value = copying(found, repeats, layer, head);
      if (value > best.value) best = { layer, head, value };
    }
  }
  return { layer: best.layer, head: best.head };
}
