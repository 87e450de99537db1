// Job transitions as they happen, from a stream that is taken up again where it broke off. EventSource would do, but
// sends no key.
import { byId, el, keyed, say } from "./dom.js";
import { open, Refused } from "./http.js";
import { known, t, time } from "./words.js";

const SHOWN = 50;
const SILENCE = 40_000; // ms; the service says something every 15 s
const FIRST_PAUSE = 1_000;
const LONGEST_PAUSE = 30_000;
const DRAW_EVERY = 250; // ms, however much happens
const MOST_TEXT = 1_000_000; // characters of one event

let cursor = "";
let number = 0;
let held = false;
let state = "connecting";
let drawing = 0;
let onEvent = () => {};
let wake = () => {};
const latest = [];

/** `callback` gets each event: {jobId, queue, stage, state, at}. */
export function startEvents(callback) {
  onEvent = callback;
  byId("events-hold").addEventListener("click", hold);
  follow();
}

/** Try at once, where the stream waits for its next try. */
export const reconnect = () => wake();

/** Draw everything anew. */
export function redraw() {
  byId("events").replaceChildren();
  draw();
}

function hold() {
  held = !held;
  byId("events-hold").setAttribute("aria-pressed", String(held));
  draw();
}

async function follow() {
  for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 2, LONGEST_PAUSE)) {
    // A browser has few connections for one service: a tab nobody looks at is not to hold one.
    await visible();
    try {
      await stream(() => { pause = FIRST_PAUSE / 2; });
      become("connecting");
    } catch (error) {
      become([404, 503].includes(error.status) ? "polling" : "connecting");
      if (error instanceof Refused && error.status !== 503) pause = LONGEST_PAUSE;
    }
    await rest(pause * (0.8 + Math.random() * 0.4));
  }
}

function rest(pause) {
  return new Promise((resolve) => {
    wake = resolve;
    setTimeout(resolve, pause);
  });
}

function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true });
  });
}

async function stream(opened) {
  const end = new AbortController();
  const hide = () => document.hidden && end.abort();
  document.addEventListener("visibilitychange", hide);
  let silence = setTimeout(() => end.abort(), SILENCE);
  try {
    const headers = { Accept: "text/event-stream", ...(cursor && { "Last-Event-ID": cursor }) };
    const answer = await open("/queue/events", { headers, signal: end.signal });
    become("live");
    opened();
    const parse = parser(happened);
    for await (const text of chunks(answer.body)) {
      clearTimeout(silence);
      silence = setTimeout(() => end.abort(), SILENCE);
      parse(text);
    }
  } finally {
    end.abort(); // where an event could not be read the stream is still open
    clearTimeout(silence);
    document.removeEventListener("visibilitychange", hide);
  }
}

async function* chunks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

/** Takes text/event-stream in pieces, and calls `emit` with each event: {event, data, id}. */
export function parser(emit) {
  let rest = "";
  let fields = {};
  return (text) => {
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    if (rest.length > MOST_TEXT) throw new Error("an event without an end");
    for (const line of lines) {
      if (line) field(fields, line);
      else {
        if (fields.data !== undefined) emit(fields);
        fields = {};
      }
    }
  };
}

function field(fields, line) {
  const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
  if (name === "data" && fields.data !== undefined) fields.data += `\n${value ?? ""}`;
  else if (name) fields[name] = value ?? "";
}

function happened({ event, data, id }) {
  if (id !== undefined) cursor = id;
  if (event === "gap") return add({ gap: true, at: Date.now() });
  if (event !== "job") return undefined;
  let job;
  try {
    job = JSON.parse(data);
  } catch {
    return undefined;
  }
  onEvent(job);
  return add(job);
}

function add(job) {
  latest.unshift({ ...job, number: (number += 1) });
  latest.length = Math.min(latest.length, SHOWN);
  drawing ||= setTimeout(draw, DRAW_EVERY);
}

function become(now) {
  state = now;
  drawing ||= setTimeout(draw, 0);
}

function draw() {
  drawing = 0;
  say(byId("events-state"), t(held ? "events.held" : `events.${state}`));
  byId("events").hidden = !latest.length;
  if (!held) keyed(byId("events"), latest, (each) => String(each.number), row);
}

function row(each) {
  const at = el("time", {}, time(each.at));
  if (each.gap) return el("li", {}, at, el("em", {}, t("events.gap")));
  const about = [each.attempt > 1 && t("events.attempt", { attempt: each.attempt }), each.progress && `${each.progress} %`];
  return el(
    "li",
    {},
    at,
    el("span", { class: "mark", "data-state": each.state }, known("jobstate", each.state)),
    el("a", { href: `#job=${encodeURIComponent(each.jobId)}`, title: `${each.queue}.${each.stage}` }, String(each.jobId)),
    el("span", { class: "note" }, about.filter(Boolean).join(" · ")),
  );
}
