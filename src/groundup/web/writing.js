/** A text that the model writes while one watches, and what is said of it afterwards. */

const ENDS = { stop: "ended by itself", length: "the length was reached" };

/**
 * Ask for a text by a streaming request. `onText` is called with all that is there so far, on each
 * piece. Resolves to `{ text, told }`, told being a line about it; stopping it is no error.
 */
export async function write(context, path, body, onText, signal) {
  let [text, first, usage, finish] = ["", null, null, null];
  const began = performance.now();
  try {
    await context.stream(path, streamed(body), (event) => {
      usage = event.usage ?? usage;
      const [choice] = event.choices ?? [];
      if (!choice) return;
      finish = choice.finish_reason ?? finish;
      const piece = choice.delta ? choice.delta.content : choice.text;
      if (!piece) return;
      first ??= performance.now();
      text += piece;
      onText(text);
    }, signal);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    finish = "stopped";
  }
  const seconds = (performance.now() - (first ?? began)) / 1000;
  const count = usage?.completion_tokens;
  const told = [
    count === undefined ? null : `${count} token${count === 1 ? "" : "s"}`,
    count > 1 ? `${((count - 1) / Math.max(seconds, 1e-3)).toFixed(count > 20 * seconds ? 0 : 1)} a second` : null,
    body.seed === undefined ? null : `seed ${body.seed}`,
    finish === "stopped" ? "stopped" : (ENDS[finish] ?? finish),
  ];
  return { text, told: told.filter((each) => each !== null).join(" · ") };
}

/** A request as it is sent, and shown as code: piece by piece, with the count of tokens at its end. */
export function streamed(body) {
  return { ...body, stream: true, stream_options: { include_usage: true } };
}
