// Workers and schedules.
import { byId, el, keyed, say } from "./dom.js";
import { get, post, Refused, url } from "./http.js";
import { action, inWords } from "./talk.js";
import { count, duration, known, relative, t, time } from "./words.js";

const SILENT = 15; // seconds after which a worker may be dead

/** A list that is asked for by a path and shown under an id. */
class List {
  #items = null;
  #note = "";

  constructor(name, path, key, make, update) {
    Object.assign(this, { name, path, key, make, update });
  }

  async look() {
    try {
      this.#items = (await get(this.path))[this.name] ?? [];
      this.#note = this.#items.length ? "" : t(`${this.name}.none`);
    } catch (error) {
      this.#items ??= [];
      this.#note = error instanceof Refused && error.status === 404 ? t("missing") : inWords(error);
    }
    this.show();
  }

  show() {
    say(byId(`${this.name}-note`), this.#note);
    byId(`${this.name}-note`).hidden = !this.#note;
    keyed(byId(this.name), this.#items ?? [], this.key, this.make, this.update);
  }

  redraw() {
    byId(this.name).replaceChildren();
    this.show();
  }
}

export const workers = new List("workers", "/queue/workers", (each) => each.worker, line, (node, each) => {
  const silent = each.silentSeconds > SILENT;
  const state = silent ? t("workers.silent", { time: duration(each.silentSeconds) }) : t("workers.active", { count: count(each.active) });
  node.classList.toggle("bad", silent);
  fill(node, each.worker, state, (each.stages ?? []).join(", "));
});

export const schedules = new List("schedules", "/queue/scheduled-jobs", (each) => each.name, scheduled, (node, each) => {
  const when = each.paused ? t("schedules.paused") : each.next ? `${relative(each.next.ms)} (${time(each.next.ms)})` : t("schedules.never");
  fill(node, each.name, when, about(each));
  const [, pause, resume] = node.querySelectorAll("button");
  const focused = node.contains(document.activeElement) && document.activeElement !== node.querySelector("button");
  pause.hidden = each.paused;
  resume.hidden = !each.paused;
  if (focused) (each.paused ? resume : pause).focus();
  node.querySelector("a").hidden = !each.last;
  if (each.last) node.querySelector("a").href = `#job=${encodeURIComponent(each.last.jobId)}`;
});

function line() {
  return el("li", {}, el("strong"), el("span"), el("span", { class: "note" }));
}

function fill(node, name, state, rest) {
  const [first, second, third] = node.children;
  say(first, name);
  say(second, state);
  say(third, rest);
}

function scheduled(each) {
  const node = line();
  node.append(el("a", { "data-i18n": "schedules.last", "aria-label": `${t("schedules.last")} ${each.name}` }, t("schedules.last")));
  const buttons = ["run", "pause", "resume"].map((what) => steering(each.name, what));
  node.append(el("span", { class: "buttons" }, ...buttons));
  return node;
}

function about({ cron, zone, last, missed }) {
  const state = last && `${t("schedules.fired", { time: time(last.firedAt?.ms) })} ${last.state ? known("jobstate", last.state) : ""}`.trim();
  return [`${cron} ${zone}`, state, missed > 0 && t("schedules.missed", { count: count(missed) })].filter(Boolean).join(" · ");
}

const PATHS = {
  run: (name) => url`/queue/schedule/${name}/run`,
  pause: (name) => url`/queue/schedule/${name}/pause`,
  resume: (name) => url`/queue/schedule/${name}/resume`,
};

function steering(name, what) {
  return action(`schedules.${what}`, async () => {
    await post(PATHS[what](name));
    await schedules.look();
    return t(`schedules.${what}.done`, { name });
  }, { "aria-label": `${t(`schedules.${what}`)} ${name}` });
}
