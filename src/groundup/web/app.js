/** The page's frame: tabs by the address's hash, the model that is looked at, light and dark. */

import { ask, stream } from "./asking.js";
import { isDark, setColours } from "./colours.js";
import { element, step, visible } from "./dom.js";

const writes = (model) => model.kind === "language model";

/** Each tab: the module that shows it, and which models it is about; without any it isn't there. */
const TABS = [
  { id: "chat", title: (models) => (models.some((model) => model.prompt_style) ? "Chat" : "Write"), module: "./chat.js", takes: writes },
  { id: "xray", title: "X-ray", module: "./live.js", takes: writes },
  { id: "tokenizer", title: "Tokenizer", module: "./tokenizer.js", takes: () => true },
];

const COLOURS = "groundup-colours";

async function start() {
  setColours(localStorage.getItem(COLOURS) ?? "");
  const main = document.getElementById("main");
  try {
    frame(main, await ask("page/models"));
  } catch (error) {
    main.replaceChildren(element("p", { class: "problem", role: "alert" }, visible(error.message)));
  }
}

function frame(main, models) {
  const tabs = TABS.filter((tab) => models.some(tab.takes)).map((tab) => tabOf({ ...tab, title: typeof tab.title === "string" ? tab.title : tab.title(models) }, models));
  const list = element("nav", { class: "tabs", role: "tablist", "aria-label": "what to do" });
  const chooser = element("div", { class: "chooser" });
  list.append(...tabs.map((tab) => tab.button));
  main.replaceChildren(...tabs.map((tab) => tab.panel));
  const brand = element("a", { class: "brand", href: "#" }, "groundup");
  document.getElementById("head").replaceChildren(brand, list, chooser, colourSwitch());

  let chosen = models[0].name; // what was chosen last, in whichever tab
  function show() {
    const tab = tabs.find(({ id }) => `#${id}` === location.hash) ?? tabs[0];
    for (const each of tabs) {
      const here = each === tab;
      each.button.setAttribute("aria-selected", here);
      each.button.tabIndex = here ? 0 : -1;
      each.panel.hidden = !here;
    }
    document.title = `${tab.title} · groundup`;
    const fits = models.filter(tab.takes);
    tab.look(fits.find(({ name }) => name === chosen) ?? fits[0]);
    chooser.replaceChildren(...choosing(fits, tab.context.model, (model) => {
      chosen = model.name;
      tab.look(model);
    }));
  }
  list.addEventListener("keydown", (event) => {
    const at = tabs.findIndex(({ button }) => button === document.activeElement);
    const to = event.key.startsWith("Arrow") || ["Home", "End"].includes(event.key) ? step(event.key, at, tabs.length) : null;
    if (at < 0 || to === null) return;
    event.preventDefault();
    location.hash = tabs[to].id;
    tabs[to].button.focus();
  });
  addEventListener("hashchange", show);
  show();
}

/** A tab with its panel, whose module is loaded when it is first looked at. */
function tabOf(tab, models) {
  const button = element("a", { role: "tab", href: `#${tab.id}`, id: `tab-${tab.id}` }, tab.title);
  // The panel's id is not the hash, or browsers would scroll to it.
  const panel = element("div", { role: "tabpanel", id: `panel-${tab.id}`, "aria-labelledby": `tab-${tab.id}` });
  button.setAttribute("aria-controls", panel.id);
  const followers = [];
  const context = { models, model: null, fetch: ask, stream, follow: (draw) => followers.push(draw), get dark() { return isDark(); } };
  let mounted = null;
  function look(model) {
    const before = context.model;
    context.model = model;
    mounted ??= load();
    if (before && before !== model) mounted.then(() => followers.forEach((draw) => draw()));
  }
  async function load() {
    try {
      await (await import(tab.module)).mount(panel, context);
    } catch (error) {
      panel.replaceChildren(element("p", { class: "problem", role: "alert" }, visible(error.message)));
    }
  }
  return { ...tab, button, panel, context, look };
}

/** The models that a tab is about: a choice, or the name of the only one. */
function choosing(models, chosen, choose) {
  if (models.length === 1) return [element("bdi", { class: "only", title: visible(chosen.name) }, visible(chosen.name))];
  const select = element("select", { "aria-label": "model", change: () => choose(models[select.selectedIndex]) });
  select.append(...models.map((model) => element("option", {}, visible(model.name))));
  select.selectedIndex = models.indexOf(chosen);
  return [select];
}

function colourSwitch() {
  const button = element("button", { type: "button", class: "quietly", click: () => {
    const scheme = isDark() ? "light" : "dark";
    localStorage.setItem(COLOURS, scheme);
    setColours(scheme);
    tell();
  } });
  function tell() {
    button.textContent = isDark() ? "☀" : "☾";
    button.title = isDark() ? "light colours" : "dark colours";
    button.setAttribute("aria-label", button.title);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
  tell();
  return button;
}

start();
