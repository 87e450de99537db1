// Dead letters: why they are there, and back to work with them.
import { queueOfStage } from "./board.js";
import { byId, el, keyed, options, say } from "./dom.js";
import { get, post, Refused, url } from "./http.js";
import { action, confirmed, inWords, once } from "./talk.js";
import { count, t, time } from "./words.js";

const PAGE = 50;
const MOST_SHOWN = 500;
const AT_ONCE = 4;

let letters = [];
let next = null;
let note = "";
let busy = false; // while many are being replayed, or more are shown than one page
let stages = [];
let changed = () => {};

/** `after` is called when letters were put back to work. */
export function startDead(after) {
  changed = after;
  byId("dead-stage").addEventListener("change", () => again());
  byId("dead-more").addEventListener("click", () => once(byId("dead-more"), more));
  byId("dead-all").addEventListener("click", () => once(byId("dead-all"), replayAll));
}

/** Ask for the first page again, unless the reader is further down. */
export async function lookAtDead() {
  if (!busy && letters.length <= PAGE) await again();
}

/** Show the dead letters of one stage. */
export async function showDeadOf(stage) {
  byId("dead-stage").value = stage;
  byId("dead").scrollIntoView({ block: "start" });
  byId("dead").focus({ preventScroll: true });
  await again();
}

/** Draw everything anew. */
export function redraw() {
  byId("letters").replaceChildren();
  show();
}

/** Offer these stages, with how many letters each has. */
export function offer(found) {
  stages = found;
  const all = ["", t("dead.everywhere")];
  options(byId("dead-stage"), [all, ...found.map((each) => [each.stage, `${each.name} (${count(each.dead)})`])]);
  showTools();
}

async function again() {
  const stage = byId("dead-stage").value;
  let found = { letters: [], next: null };
  let said = "";
  try {
    found = await page(stage);
    said = found.letters.length ? "" : t("dead.none");
  } catch (error) {
    said = error instanceof Refused && error.status === 404 ? t("missing") : inWords(error);
  }
  if (stage !== byId("dead-stage").value) return; // another one was chosen meanwhile, and is asked for
  ({ letters, next } = found);
  note = said;
  show();
}

async function more() {
  const stage = byId("dead-stage").value;
  const answer = await page(stage, next);
  if (stage !== byId("dead-stage").value) return;
  letters = [...letters, ...answer.letters].slice(0, MOST_SHOWN);
  next = letters.length < MOST_SHOWN ? answer.next : null;
  show();
}

async function page(stage, after = null) {
  const asked = new URLSearchParams({ limit: PAGE });
  if (stage) asked.set("stage", stage);
  if (stage && queueOfStage(stage)) asked.set("queue", queueOfStage(stage));
  if (after) asked.set("after", after);
  const answer = await get(`/queue/dead?${asked}`);
  return { letters: answer.letters ?? [], next: answer.next ?? null };
}

function show() {
  say(byId("dead-note"), note);
  keyed(byId("letters"), letters, (letter) => `${letter.jobId} ${letter.letter}`, letterOf);
  byId("dead-more").hidden = !next;
  showTools();
}

function showTools() {
  const stage = stages.find((each) => each.stage === byId("dead-stage").value);
  byId("dead-all").hidden = !stage?.dead;
}

function letterOf(letter) {
  const about = [t("dead.tries", { tries: count(letter.attempt) }), time(letter.buriedAt), letter.tenant];
  const node = el(
    "li",
    { class: "letter" },
    el("div", { class: "about" }, el("a", { href: `#job=${encodeURIComponent(letter.jobId)}` }, letter.jobId),
      el("span", { class: "note" }, about.filter(Boolean).join(" · "))),
    el("div", {}, el("strong", {}, String(letter.reason ?? "")), ...(letter.error ? [el("pre", { class: "error" }, String(letter.error))] : [])),
    action("dead.replay", () => replayed(letter), { "aria-label": `${t("dead.replay")} ${letter.jobId}` }),
  );
  if (letter.payload !== undefined) node.append(payloadOf(letter.payload));
  return node;
}

const payloadOf = (payload) =>
  el("details", {}, el("summary", { "data-i18n": "dead.payload" }, t("dead.payload")), el("pre", {}, JSON.stringify(payload, null, 2)));

async function replayed(letter) {
  const id = await replay(letter);
  keepFocus(letter);
  letters = letters.filter((each) => each !== letter);
  note = letters.length ? "" : t("dead.none");
  show();
  changed();
  return t("dead.replayed", { job: letter.jobId, now: id });
}

// Who works through the list by keyboard finds the focus on the next letter's button.
function keepFocus(letter) {
  const at = letters.indexOf(letter);
  const row = byId("letters").children[at];
  if (!row?.contains(document.activeElement)) return;
  const other = byId("letters").children[at + 1] ?? byId("letters").children[at - 1];
  (other?.querySelector("button") ?? byId("dead")).focus();
}

async function replay(letter) {
  const answer = await post(url`/queue/retry/${letter.jobId}`);
  return answer.jobId ?? "";
}

async function replayAll() {
  const stage = stages.find((each) => each.stage === byId("dead-stage").value);
  if (!stage || !(await confirmed("replay", { stage: stage.name, count: count(stage.dead) }))) return "";
  busy = true;
  try {
    const done = await replayPages(stage.stage, stage.dead);
    return t("dead.replayedAll", { count: count(done), stage: stage.name });
  } finally {
    busy = false;
    await again();
    changed();
  }
}

// No more than there were: what is buried anew meanwhile has just been tried. And of this stage, whichever the
// reader chooses meanwhile.
async function replayPages(stage, most) {
  let done = 0;
  let found = await page(stage);
  while (found.letters.length && done < most) {
    const todo = found.letters.slice(0, most - done);
    await eachOf(todo, async (letter) => {
      await replayUnlessGone(letter);
      done += 1;
      say(byId("dead-note"), t("dead.replaying", { done: count(done), most: count(most) }));
    });
    if (!found.next) break;
    found = await page(stage, found.next);
  }
  return done;
}

async function replayUnlessGone(letter) {
  try {
    await replay(letter);
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 404) throw error; // somebody else was faster
  }
}

async function eachOf(items, work) {
  const left = [...items];
  const hand = async () => {
    try {
      for (let item = left.shift(); item; item = left.shift()) await work(item);
    } finally {
      left.length = 0; // where one could not be done, the others stop, too
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, hand));
}
