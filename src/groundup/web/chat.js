/** Talk to a model, or let it continue a text; how it does so is set beside it. */

import { completeView } from "./complete.js";
import { element, percent, visible, word } from "./dom.js";
import { asCurl, asPython, copyButton, overlay, samplingBox } from "./settings.js";
import { talkView } from "./talk.js";
import { streamed } from "./writing.js";

export async function mount(root, context) {
  const sampling = samplingBox(context);
  const system = systemBox(context);
  const about = element("p", { class: "about quiet" });
  const body = element("div", { class: "talk" });
  const modes = modeSwitch(() => show());
  const tools = element(
    "div",
    { class: "tools" },
    element("button", { type: "button", class: "plain", click: () => showPrompt(context, view) }, "The real prompt"),
    element("button", { type: "button", class: "plain", click: () => showCode(view) }, "As code"),
  );
  const wide = matchMedia("(min-width: 60rem)").matches;
  const details = element("details", { class: "settings", open: wide }, element("summary", {}, "Settings"), modes.box, system.box, sampling.box, tools);
  const shared = { context, sampling: sampling.sampling, system: system.value };
  const views = { chat: talkView(shared), complete: completeView(shared) };
  let view = null;

  function show() {
    const { model } = context;
    modes.box.hidden = !model.prompt_style;
    const mode = model.prompt_style ? modes.value() : "complete";
    system.show(mode === "chat");
    about.replaceChildren(...introduction(model, mode));
    if (view !== views[mode]) view?.stop();
    view = views[mode];
    view.renew();
    body.replaceChildren(view.root);
  }
  root.replaceChildren(element("div", { class: "beside" }, element("div", {}, about, body), element("aside", {}, details)));
  context.follow(show);
  show();
}

function introduction(model, mode) {
  const facts = `${model.architecture} · ${model.parameters.toLocaleString("en")} parameters · reads ${model.context_length.toLocaleString("en")} tokens`;
  const style = model.prompt_style === "model" ? "in its own chat template" : `in the prompt style ${model.prompt_style}`;
  const how = mode === "chat" ? `asked ${style}` : model.prompt_style ? "continues what you write" : "no prompt style: it continues what you write";
  return [element("bdi", { class: "name" }, visible(model.name)), ` · ${facts} · ${how}`];
}

/** Chat or complete: for models that can be asked. */
function modeSwitch(changed) {
  const radios = ["chat", "complete"].map((mode) => element("input", { type: "radio", name: "mode", id: `mode-${mode}`, value: mode, checked: mode === "chat", change: changed }));
  const labels = ["Chat", "Complete"].map((text, i) => element("label", { for: radios[i].id }, text));
  const box = element("div", { class: "modes", role: "radiogroup", "aria-label": "what the model does" }, radios[0], labels[0], radios[1], labels[1]);
  return { box, value: () => radios.find((radio) => radio.checked).value };
}

/** The system message, where the model's style has one. */
function systemBox(context) {
  const area = element("textarea", { id: "system", rows: 3 });
  const box = element("div", { class: "field" }, element("label", { for: "system" }, "system message"), area);
  return {
    box,
    show(wanted) {
      box.hidden = !(wanted && context.model.system);
      area.placeholder = context.model.default_system ?? (context.model.prompt_style === "model" ? "the template's own, if it has one" : "none");
    },
    value: () => (box.hidden || !area.value.trim() ? null : area.value),
  };
}

/** What the model reads, token by token, when it is asked now. */
async function showPrompt(context, view) {
  const tokens = element("div", { class: "prompt" });
  const told = element("p", { class: "quiet" });
  overlay("What the model reads", told, tokens);
  try {
    const found = await context.fetch("page/prompt", { model: context.model.name, ...view.prompt() });
    const [count, most] = [found.tokens.length, found.context_length];
    told.textContent =
      `${count.toLocaleString("en")} tokens of the ${most.toLocaleString("en")} that it can read (${percent(count / most)}). ` +
      "Framed ones are special: nobody can write them by spelling them." +
      (found.stop.length ? ` An answer ends at ${found.stop.map(visible).join(", ")}.` : "");
    for (const { id, text, special } of found.tokens) {
      tokens.append(element("span", { class: special ? "piece special" : "piece", title: `token ${id}` }, word(text)));
      if (text.endsWith("\n")) tokens.append(element("br"));
    }
  } catch (error) {
    told.textContent = visible(error.message);
  }
}

/** The request that is sent now, for elsewhere. */
function showCode(view) {
  const { path, body } = view.request();
  const texts = { "Python, by OpenAI's client": asPython(path, { ...body, stream: true }), "curl": asCurl(path, streamed(body)) };
  const parts = Object.entries(texts).map(([title, text]) =>
    element("section", { class: "code" }, element("div", { class: "row" }, element("h3", {}, title), copyButton(() => text)), element("pre", { tabindex: 0 }, text)),
  );
  overlay("The same from elsewhere", ...parts);
}
