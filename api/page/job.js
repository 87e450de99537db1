// One job: found by its id, and watched until it has ended.
import { knownStages, queueOfStage } from "./board.js";
import { byId, el, say } from "./dom.js";
import { get, post, Refused, url } from "./http.js";
import { Loop } from "./loop.js";
import { action, inWords } from "./talk.js";
import { count, duration, known, t, time } from "./words.js";

const ENDED = new Set(["completed", "failed", "cancelled"]);
const TIMES = ["enqueuedAt", "dueAt", "startedAt", "endedAt"];
const SHOWN = ["state", "queue", "stage", "attempt", "progress", "doing", "position", ...TIMES, "took", "tenant", "reason", "trace", "next"];
const BLOCKS = ["error", "result", "delivery"];
const SOON = 150; // ms to wait for more events of the job

let wanted = ""; // the id that is asked for
let shown = ""; // what is on the screen, as JSON
let job = null;
let failure = "";
let traceUrl = "";
let waiting = 0;
let stagesKnown = Promise.resolve();
const watch = new Loop(2, look);

/** `trace` is the address of a trace, with {traceId} in it; `stages` resolves when the stages are known. */
export function startJob(trace, stages) {
  traceUrl = /^https?:\/\//.test(trace) ? trace : "";
  stagesKnown = stages;
  byId("job-form").addEventListener("submit", (event) => {
    event.preventDefault();
    find(byId("job-id").value.trim());
  });
  window.addEventListener("hashchange", fromAddress);
  fromAddress();
}

/** Look a job up; its id is in the page's address then, so that it can be passed on. */
export function find(id) {
  if (idIn(location.hash) === id) open(id);
  else location.hash = `job=${encodeURIComponent(id)}`;
}

/** Something happened to a job: look again, if it is the one on the screen. */
export function happened(id) {
  if (id !== wanted || waiting) return;
  waiting = setTimeout(() => {
    waiting = 0;
    watch.now();
  }, SOON);
}

/** Draw everything anew. */
export function redraw() {
  shown = "";
  show();
}

function fromAddress() {
  const id = idIn(location.hash);
  if (!id) return;
  open(id);
  byId("job-section").scrollIntoView({ block: "nearest" });
}

function idIn(hash) {
  try {
    return decodeURIComponent(/^#job=(.+)$/.exec(hash)?.[1] ?? "").slice(0, 200);
  } catch {
    return "";
  }
}

function open(id) {
  if (id !== wanted) job = null;
  wanted = id;
  failure = "";
  byId("job-id").value = id;
  watch.now();
}

async function look() {
  const id = wanted;
  if (!id || (job && ENDED.has(job.state))) return;
  try {
    const found = await ask(id);
    if (id === wanted) [job, failure] = [found, ""];
  } catch (error) {
    if (id === wanted) [job, failure] = [error instanceof Refused ? null : job, inWords(error)];
  }
  show();
}

// An id says its stage, and the figures say whose that is.
async function ask(id) {
  await stagesKnown;
  const [stage] = id.split(".");
  const queue = queueOfStage(stage);
  if (!queue && knownStages().length) throw new Refused(404, { detail: t("job.noStage", { stage }) }, "");
  return get(url`/queue/job/${queue ?? "-"}/${id}`);
}

function show() {
  const now = JSON.stringify([wanted, job, failure]);
  if (now === shown || !wanted) return;
  shown = now;
  say(byId("job-said"), job ? t("job.said", { job: job.jobId, state: known("jobstate", job.state) }) : failure);
  const focused = document.activeElement?.dataset?.part;
  byId("job").replaceChildren(...(job ? parts() : []), ...(failure ? [el("p", { class: "bad" }, failure)] : []));
  if (focused) byId("job").querySelector(`[data-part="${focused}"]`)?.focus();
}

function parts() {
  const list = el("dl", { class: "job" });
  for (const name of SHOWN) {
    const value = valueOf(name);
    if (value) list.append(el("div", { class: name }, el("dt", {}, t(`job.${name}`)), el("dd", {}, value)));
  }
  return [list, ...BLOCKS.filter((name) => job[name] !== undefined && job[name] !== "").map(block), ...remedies()];
}

function block(name) {
  const value = job[name];
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  return el("div", { class: "block" }, el("h3", {}, t(`job.${name}`)), el("pre", { class: name, tabindex: 0, "data-part": name, "aria-label": t(`job.${name}`) }, text));
}

function remedies() {
  if (job.state === "failed") return [action("dead.replay", replay, { "data-part": "replay" })];
  return ENDED.has(job.state) ? [] : [action("job.cancel", cancel, { "data-part": "cancel" })];
}

async function replay() {
  const answer = await post(url`/queue/retry/${job.jobId}`);
  find(answer.jobId);
  return t("dead.replayed", { job: job.jobId, now: answer.jobId });
}

async function cancel() {
  const { answer } = await post(url`/queue/cancel/${job.jobId}`);
  watch.now();
  return known("cancel", answer);
}

function valueOf(name) {
  if (TIMES.includes(name)) return job[name] ? time(job[name]) : "";
  return (SPECIAL[name] ?? plain)(name);
}

const plain = (name) => (job[name] === undefined || job[name] === "" ? "" : String(job[name]));

const SPECIAL = {
  state: () => el("span", { class: "mark", "data-state": job.state }, known("jobstate", job.state)),
  attempt: () => (job.attempt ? count(job.attempt) : ""),
  progress: () => (job.progress ? `${count(job.progress)} %` : ""),
  position: () => (job.position === undefined ? "" : t(job.positionAtLeast ? "job.position.atLeast" : "job.position.is", { count: count(job.position) })),
  took: () => (job.startedAt && job.endedAt ? duration((job.endedAt - job.startedAt) / 1000) : ""),
  trace,
  next: () => (job.next?.length ? el("span", { class: "links" }, ...job.next.map(link)) : ""),
};

const link = (id) => el("a", { href: `#job=${encodeURIComponent(id)}` }, id);

function trace() {
  const id = job.traceId ?? "";
  if (!traceUrl || !/^[0-9a-f]{32}$/.test(id)) return id;
  return el("a", { href: traceUrl.replace("{traceId}", id), target: "_blank", rel: "noopener noreferrer", "data-part": "trace" }, id);
}
