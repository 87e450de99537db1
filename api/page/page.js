// The live page: puts its parts together and asks for what they show, while somebody looks.
import * as board from "./board.js";
import * as chores from "./chores.js";
import * as dead from "./dead.js";
import { byId } from "./dom.js";
import * as enqueue from "./enqueue.js";
import * as events from "./events.js";
import { get } from "./http.js";
import * as job from "./job.js";
import { keep, recall } from "./kept.js";
import { Loop } from "./loop.js";
import { startDialogs } from "./talk.js";
import { currentLanguage, speak, translate } from "./words.js";

let deadBefore = -1;

const figures = new Loop(2, async () => {
  const { stages } = await board.look();
  dead.offer(stages);
  enqueue.offer(stages);
  const deadNow = stages.map((stage) => stage.dead).join();
  if (deadNow !== deadBefore) letters.now();
  deadBefore = deadNow;
});
const letters = new Loop(30, dead.lookAtDead);
const workers = new Loop(10, () => chores.workers.look());
const schedules = new Loop(30, () => chores.schedules.look());

function lookAtAll() {
  for (const loop of [figures, letters, workers, schedules]) loop.now();
}

function startSwitches() {
  byId("language").value = currentLanguage();
  byId("language").addEventListener("change", () => {
    speak(byId("language").value);
    translate();
    for (const part of [board, dead, job, events, chores.workers, chores.schedules]) part.redraw();
    lookAtAll();
  });
  byId("theme").addEventListener("change", () => dress(byId("theme").value));
  dress(recall("localStorage", "theme") || "auto");
}

function dress(theme) {
  byId("theme").value = theme;
  document.documentElement.dataset.theme = theme;
  keep("localStorage", "theme", theme === "auto" ? "" : theme);
}

async function start() {
  translate();
  startSwitches();
  startDialogs(() => {
    lookAtAll();
    events.reconnect();
  });
  board.startBoard(() => figures.now(), dead.showDeadOf);
  dead.startDead(() => figures.now());
  enqueue.startEnqueue(() => figures.now());
  const seen = figures.now();
  for (const loop of [workers, schedules]) loop.now();
  events.startEvents((event) => job.happened(event.jobId));
  const settings = await get("/page/settings.json").catch(() => ({}));
  job.startJob(settings.traceUrl ?? "", seen);
}

start();
