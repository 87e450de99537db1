// The state of everything, what needs attention, and the table of queues and stages.
import { chart, draw, remember } from "./chart.js";
import { byId, el, keyed, say } from "./dom.js";
import { concerns, figures, totals } from "./figures.js";
import { post, Refused, Unreachable, url } from "./http.js";
import { action, confirmed, inWords } from "./talk.js";
import { count, duration, percent, rate, t } from "./words.js";

const COLUMNS = ["name", "state", "waiting", "delayed", "active", "retrying", "dead", "oldest", "in", "out", "busy", "drain", "depth", "rates", "steer"];
const DEPTHS = ["waiting", "delayed", "active", "retrying", "dead"];
const TOTALS = ["waiting", "active", "retrying", "delayed", "dead", "in", "out", "memory"];
const OLD = 10_000; // ms after which figures are no longer those of now
const MOST_CONCERNS = 8;

let last = null; // the newest figures
let trouble = null; // what the newest question came to, where it was not figures
let refresh = () => {};
let showDead = () => {};

/** The stages as they were last heard of. */
export const knownStages = () => last?.stages ?? [];

/** The queue of a stage; undefined where there is no such stage. */
export const queueOfStage = (stage) => knownStages().find((each) => each.stage === stage)?.queue;

/** `again` asks for figures at once; `dead` shows the dead letters of a stage. */
export function startBoard(again, dead) {
  refresh = again;
  showDead = dead;
  setInterval(showAge, 1000);
}

/** Ask for the figures, and show them. Throws what was in the way, after showing that. */
export async function look() {
  try {
    last = await figures();
    trouble = null;
    for (const each of [...last.queues, ...last.stages]) remember(each.name, last.at, sample(each));
    remember("", last.at, sample(totals(last.queues)));
  } catch (error) {
    trouble = error;
    throw error;
  } finally {
    show();
  }
  return last;
}

const sample = (each) => ({ depth: each.unfinished, in: each.in1m ?? 0, out: each.out1m ?? 0 });

/** Draw everything anew, after another language was chosen. */
export function redraw() {
  for (const body of document.querySelectorAll(".stages tbody")) body.remove();
  for (const id of ["columns", "totals", "charts", "attention"]) byId(id).replaceChildren();
  show();
}

function show() {
  showState();
  showAge();
  if (!last) return;
  showTotals();
  showConcerns();
  showTable();
}

function stateOf() {
  if (trouble instanceof Unreachable) return "lost";
  if (trouble instanceof Refused) return trouble.status === 503 ? "away" : [401, 403].includes(trouble.status) ? "locked" : "error";
  return trouble ? "error" : last?.state ?? "loading";
}

function showState() {
  const state = stateOf();
  byId("overall").dataset.state = state;
  say(byId("overall-state"), t(`overall.${state}`));
  say(byId("overall-text"), trouble && state !== "lost" && state !== "away" ? inWords(trouble) : t(`overall.${state}.text`));
  document.title = state === "ok" ? "Riacho" : `${t(`overall.${state}`)} · Riacho`;
}

function showAge() {
  const age = last ? Date.now() - last.at : 0;
  document.body.classList.toggle("old", Boolean(last) && age > OLD);
  say(byId("overall-age"), last ? t("overall.age", { age: duration(Math.max(1, age / 1000)) }) : "");
}

function showTotals() {
  const sums = totals(last.queues);
  const shown = { ...sums, in: rate(sums.in1m), out: rate(sums.out1m), memory: percent(last.memory) };
  keyed(byId("totals"), TOTALS, (name) => name, total, (node, name) => {
    const value = DEPTHS.includes(name) ? count(shown[name]) : shown[name];
    node.classList.toggle("bad", name === "dead" && sums.dead > 0);
    say(node.lastElementChild, value);
  });
  const charts = byId("charts");
  if (!charts.children.length) charts.append(figure("depth"), figure("rates"));
  for (const svg of charts.querySelectorAll("svg")) draw(svg, "");
}

const total = (name) => el("div", {}, el("dt", {}, t(`total.${name}`)), el("dd"));
const figure = (kind) => el("figure", {}, el("figcaption", {}, t(`chart.${kind}.title`)), chart(kind));

function showConcerns() {
  const all = concerns(last);
  const shown = all.slice(0, MOST_CONCERNS);
  keyed(byId("attention"), shown, (each) => `${each.key} ${each.stage?.name ?? ""}`, concern, (node, each) => {
    node.className = each.level;
    say(node.firstElementChild, t(`concern.${each.key}`, valuesOf(each)));
  });
  const rest = all.length - shown.length;
  byId("attention-rest").hidden = all.length > 0 && !rest;
  say(byId("attention-rest"), rest ? t("attention.more", { count: count(rest) }) : t("attention.none"));
}

function concern({ stage, remedy }) {
  const node = el("li", {}, el("span"));
  if (remedy === "resume") node.append(steering(stage.stage, stage.name, "resume"));
  if (remedy === "dead") node.append(el("button", { type: "button", onclick: () => showDead(stage.stage) }, t("concern.dead.show")));
  return node;
}

function valuesOf({ stage = {}, values = {} }) {
  const told = { stage: stage.name, waiting: count(stage.waiting), dead: count(stage.dead), oldest: duration(stage.oldestWaiting) };
  return { ...told, in: rate(stage.in1m), out: rate(stage.out1m), unfinished: count(stage.unfinished), most: count(stage.highWater), memory: percent(values.memory) };
}

function showTable() {
  const table = document.querySelector(".stages");
  keyed(byId("columns"), COLUMNS, (name) => name, (name) => el("th", { role: "columnheader", scope: "col", class: name }, t(`column.${name}`)));
  const bodies = [{ name: "" }, ...last.queues]; // the first child is the table's head
  table.tHead.dataset.key = "";
  keyed(table, bodies, (queue) => queue.name, () => el("tbody", { role: "rowgroup" }), (body, queue) => {
    if (queue.name) keyed(body, [queue, ...queue.stages], (each) => each.name, row, showRow);
  });
}

function row(each) {
  const cells = COLUMNS.map((name) => el("td", { role: "cell", class: name, "data-label": t(`column.${name}`) }));
  const node = el("tr", { role: "row", class: each.stages ? "queue" : "stage" }, ...cells);
  const parts = Object.fromEntries(COLUMNS.map((name, index) => [name, cells[index]]));
  node.parts = parts;
  parts.name.replaceWith(parts.name = el("th", { role: "rowheader", scope: "row", class: "name" }, each.stage ?? each.name));
  parts.state.append(el("span", { class: "mark" }));
  parts.depth.append(chart("depth"));
  parts.rates.append(chart("rates"));
  const name = each.stage ?? each.name;
  parts.steer.append(steering(name, each.name, "pause", each), steering(name, each.name, "resume", each));
  return node;
}

function showRow(node, each) {
  const { parts } = node;
  const state = each.draining ? "draining" : each.paused ? "paused" : each.state;
  node.classList.toggle("idle", idle(each));
  parts.state.firstChild.dataset.state = state;
  say(parts.state.firstChild, t(`state.${state}`));
  for (const name of DEPTHS) number(parts[name], each[name], count(each[name]));
  number(parts.oldest, each.oldestWaiting, duration(each.oldestWaiting ?? undefined));
  number(parts.in, each.in1m, rate(each.in1m));
  number(parts.out, each.out1m, rate(each.out1m));
  number(parts.busy, each.utilisation ?? each.workers, busy(each));
  number(parts.drain, each.unfinished, drain(each));
  for (const kind of ["depth", "rates"]) draw(parts[kind].firstChild, each.name);
  const [pause, resume] = parts.steer.children;
  swap(pause, resume, each.paused || each.draining);
}

const idle = (each) => !each.unfinished && !each.dead && !each.in1m && !each.out1m;

function number(cell, value, shown) {
  cell.classList.toggle("zero", !value);
  say(cell, shown);
}

// Who pressed the one button finds the focus on the other.
function swap(pause, resume, stopped) {
  const [shown, hidden] = stopped ? [resume, pause] : [pause, resume];
  const focused = document.activeElement === hidden;
  shown.hidden = false;
  hidden.hidden = true;
  if (focused) shown.focus();
}

function busy({ stages, utilisation, workers }) {
  if (stages || workers === undefined) return "–";
  return workers ? t("busy", { share: percent(utilisation), workers: count(workers) }) : t("busy.none");
}

function drain(each) {
  if (!each.unfinished || !("drainSeconds" in each)) return "–";
  return each.drainSeconds === null ? t("drain.never") : duration(each.drainSeconds);
}

function steering(name, full, what, { stages } = {}) {
  return action(`steer.${what}`, async () => {
    if (stages?.length > 1 && !(await confirmed(what, { queue: full, count: count(stages.length) }))) return "";
    const answer = await post(what === "pause" ? url`/queue/pause/${name}` : url`/queue/resume/${name}`);
    refresh();
    return t(`steer.${what}.done`, { stages: (answer.stages ?? [full]).join(", ") });
  }, { "aria-label": `${t(`steer.${what}`)} ${full}` });
}

