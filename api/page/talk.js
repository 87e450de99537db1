// What the page says to its reader, and asks them.
import { byId, el, say } from "./dom.js";
import { hasKey, Refused, Unreachable, useKey, whenKeyWanted } from "./http.js";
import { t } from "./words.js";

const SHOWN = 8_000;

let hiding = 0;

/** Say something at the foot of the page for a while. */
export function tell(text, bad = false) {
  const said = byId("said");
  said.classList.toggle("bad", bad);
  say(said, text);
  clearTimeout(hiding);
  hiding = setTimeout(() => say(said, ""), bad ? 2 * SHOWN : SHOWN);
}

/** An error in words. */
export function inWords(error) {
  if (error instanceof Unreachable) return t("error.unreachable");
  if (!(error instanceof Refused)) return t("error.page", { detail: String(error) });
  if (error.status === 401) return t("error.key");
  if (error.status === 403 && error.scope) return t("error.scope", { scope: error.scope });
  return error.message;
}

/** A button that does something and says what came of it. `work` returns what to say. It is not disabled meanwhile,
 *  as it would lose the focus. */
export function action(key, work, about = {}) {
  const button = el("button", { type: "button", "data-i18n": key, ...about }, t(key));
  button.addEventListener("click", () => once(button, work));
  return button;
}

/** Do the work of a button, unless it is under way already; say what came of it. */
export async function once(button, work) {
  if (button.ariaBusy === "true") return;
  button.ariaBusy = "true";
  try {
    const done = await work();
    if (done) tell(done);
  } catch (error) {
    tell(inWords(error), true);
  } finally {
    button.ariaBusy = "false";
  }
}

/** Whether the reader says yes. `values` go into the texts confirm.<name>.title, .text and .yes. */
export function confirmed(name, values = {}) {
  const dialog = byId("confirm");
  say(byId("confirm-title"), t(`confirm.${name}.title`, values));
  say(byId("confirm-text"), t(`confirm.${name}.text`, values));
  say(byId("confirm-yes"), t(`confirm.${name}.yes`, values));
  dialog.returnValue = "";
  dialog.showModal();
  byId("confirm-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Connect the two dialogs; `changed` is called after the reader gave another key, or took it back. */
export function startDialogs(changed) {
  byId("confirm-no").addEventListener("click", () => byId("confirm").close(""));
  byId("confirm-yes").addEventListener("click", () => byId("confirm").close("yes"));
  byId("key-button").addEventListener("click", () => askForKey(false));
  byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
  byId("key-forget").addEventListener("click", () => given("", changed));
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    given(byId("key").value.trim(), changed);
  });
  let asked = false;
  whenKeyWanted((refused) => {
    if (asked && !refused) return; // who closed the dialog is not asked again by each poll
    asked = true;
    if (refused) useKey("");
    askForKey(refused);
  });
}

function askForKey(refused) {
  byId("key-refused").hidden = !refused;
  byId("key-forget").hidden = !hasKey();
  if (!byId("key-dialog").open) byId("key-dialog").showModal();
}

function given(key, changed) {
  useKey(key);
  byId("key").value = "";
  byId("key-dialog").close();
  changed();
}
