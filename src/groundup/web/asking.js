/** Asking the server: JSON, and streams of events; its key, if it wants one, is asked for once. */

import { element } from "./dom.js";

const KEPT = "groundup-key"; // for as long as the browser's tab is open

/** Whether the server wants a key (known once it has asked for it). */
export function hasKey() {
  return sessionStorage.getItem(KEPT) !== null;
}

/** What the server answers, as a value; an Error has the server's own sentence. */
export async function ask(path, body) {
  return (await send(path, body)).json();
}

/** Call `onEvent` with each event's value, as they come; resolves when the server has said all. */
export async function stream(path, body, onEvent, signal) {
  const response = await send(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split(/\r?\n\r?\n/);
    rest = events.pop();
    for (const event of events) {
      const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      const data = lines.map((line) => line.slice(5).trimStart()).join("\n");
      if (!data || data === "[DONE]") continue;
      const told = JSON.parse(data);
      if (told.error) throw new Error(sentenceOf(told) ?? "the server has failed");
      onEvent(told);
    }
  }
}

async function send(path, body, signal) {
  for (;;) {
    const key = sessionStorage.getItem(KEPT);
    const headers = key === null ? {} : { Authorization: `Bearer ${key}` };
    const options = body === undefined ? { headers, signal } : {
      method: "POST",
      headers: { ...headers, "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    };
    const response = await reached(path, options);
    if (response.ok) return response;
    const told = sentenceOf(await response.json().catch(() => null)) ?? `the server answered ${response.status}`;
    if (response.status !== 401) throw new Error(told);
    if (key === sessionStorage.getItem(KEPT)) await askForKey(told); // else somebody has given one meanwhile
  }
}

async function reached(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server cannot be reached; is it still running?");
  }
}

/** The sentence in an error, as OpenAI's API has it, or Ollama's. */
function sentenceOf(told) {
  const found = told?.error?.message ?? told?.error;
  return typeof found === "string" ? found : null;
}

let asked = null;

/** One dialog for all who wait for the key. */
function askForKey(told) {
  asked ??= new Promise((resolve, reject) => {
    const input = element("input", { type: "password", id: "key", autocomplete: "off", required: true });
    const dialog = element(
      "dialog",
      { class: "ask", "aria-labelledby": "key-title" },
      element(
        "form",
        { method: "dialog", submit: () => sessionStorage.setItem(KEPT, input.value.trim()) },
        element("h2", { id: "key-title" }, "This server asks for a key"),
        element("p", { class: "quiet" }, told),
        element("label", { for: "key" }, "key"),
        input,
        element("p", { class: "quiet small" }, "It is kept until this browser tab is closed, and sent to nobody else."),
        element("button", { type: "submit", class: "main" }, "Go on"),
      ),
    );
    dialog.addEventListener("cancel", () => reject(new Error(told)));
    dialog.addEventListener("submit", () => resolve());
    dialog.addEventListener("close", () => {
      asked = null;
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asked;
}
