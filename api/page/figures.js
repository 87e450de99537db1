// What /backpressure says, made whole: of an older service, or one that leaves something out, too.
import { get, Refused } from "./http.js";

const DEPTHS = ["waiting", "delayed", "active", "retrying", "dead"];
const RATES = ["in1m", "out1m"];
const WORST = ["ok", "throttling", "shedding"];
const LONG = 300; // seconds a job waits
const MUCH_MEMORY = 0.8;

let path = "/backpressure";

/** The figures of all queues: {state, memory, at, queues, stages}. Throws Refused, Unreachable. */
export async function figures() {
  let answer;
  try {
    answer = await get(path);
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 404 || path === "/queue/status") throw error;
    path = "/queue/status"; // which has no rates
    answer = await get(path);
  }
  const queues = (answer.queues ?? []).map(queueOf);
  const stages = queues.flatMap((queue) => queue.stages);
  return { state: answer.state ?? worst(stages), memory: answer.memory ?? null, at: Date.now(), queues, stages };
}

function queueOf(given) {
  const stages = (given.stages ?? []).map((stage) => stageOf({ queue: given.queue, ...stage }));
  const queue = { ...stageOf(given), name: given.queue, stages, state: given.state ?? worst(stages) };
  return { ...queue, paused: stages.length > 0 && stages.every((stage) => stage.paused) };
}

function stageOf(given) {
  const depths = Object.fromEntries(DEPTHS.map((name) => [name, given[name] ?? 0]));
  const stage = { state: given.draining ? "shedding" : "ok", ...given, ...depths, name: `${given.queue}.${given.stage}` };
  return { ...stage, unfinished: stage.waiting + stage.delayed + stage.active + stage.retrying };
}

const worst = (stages) => WORST[Math.max(0, ...stages.map((stage) => WORST.indexOf(stage.state)))];

/** Sums over all queues: depths, and rates where they are known. */
export function totals(queues) {
  const sum = (name) => queues.reduce((total, queue) => total + (queue[name] ?? 0), 0);
  const found = Object.fromEntries(DEPTHS.map((name) => [name, sum(name)]));
  for (const name of RATES) found[name] = queues.some((queue) => typeof queue[name] === "number") ? sum(name) : null;
  return { ...found, unfinished: sum("unfinished") };
}

/** What somebody should look at, the worst first: [{level, key, values, stage, remedy}]. */
export function concerns({ memory, stages }) {
  const found = stages.flatMap((stage) => concernsOf(stage).map((concern) => ({ stage, ...concern })));
  if (memory >= MUCH_MEMORY) found.push({ level: "bad", key: "memory", values: { memory } });
  return found.sort((one, other) => (one.level === "bad" ? 0 : 1) - (other.level === "bad" ? 0 : 1));
}

function concernsOf(stage) {
  const found = [stoppedOr(stage), stage.dead > 0 && { level: "bad", key: "dead", remedy: "dead" }];
  return found.filter(Boolean);
}

// Of what makes a stage slow the first that holds explains the others.
function stoppedOr(stage) {
  const moves = stage.workers !== 0;
  if (stage.paused) return { level: "warn", key: "paused", remedy: "resume" };
  if (stage.draining) return { level: "warn", key: "draining", remedy: "resume" };
  if (stage.waiting > 0 && !moves) return { level: "bad", key: "unworked" };
  if (stage.state === "shedding") return { level: "bad", key: "shedding" };
  if (stage.state === "throttling") return { level: "warn", key: "throttling" };
  if (stage.oldestWaiting > LONG) return { level: "warn", key: "old" };
  if (stage.waiting > Math.max(20, stage.slots ?? 0) && stage.in1m > stage.out1m * 1.05) return { level: "warn", key: "grows" };
  return null;
}
