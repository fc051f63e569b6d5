/** From scores to probabilities, as `groundup/decoding/sampling.py`: top-k, temperature, top-p. */

/**
 * How likely each token is to be drawn.
 *
 * `next` has the highest scores (`logits`, the first is 0) and, for each of the temperatures 0.1,
 * 0.2, …, what all others weigh together (`tails`). A `topK` of null keeps all. Of the others only
 * their sum (`rest`) is known; where top-p cuts among them, it is right but for one small token.
 */
export function distribution(next, { temperature = 1, topK = null, topP = 1 } = {}) {
  const { logits, tails } = next;
  if (temperature === 0) return { probabilities: logits.map((_, i) => (i === 0 ? 1 : 0)), rest: 0 };
  const lowest = topK === null ? -Infinity : logits[Math.min(topK, logits.length) - 1];
  const weights = logits.map((x) => (x >= lowest ? Math.exp(x / temperature) : 0));
  let rest = topK === null && tails.length ? Math.exp(tails[Math.round(temperature * 10) - 1]) : 0;
  const total = weights.reduce((sum, x) => sum + x, rest);
  let before = 0;
  for (let i = 0; topP < 1 && i < weights.length; i++) {
    const weight = weights[i];
    if (before >= topP * total) weights[i] = 0;
    before += weight;
  }
  if (topP < 1) rest = Math.min(rest, Math.max(0, topP * total - before));
  const kept = weights.reduce((sum, x) => sum + x, rest);
  return { probabilities: weights.map((x) => x / kept), rest: rest / kept };
}
