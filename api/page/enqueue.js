// A form that puts one job into a queue.
import { byId, el, options, say } from "./dom.js";
import { post, url } from "./http.js";
import { find } from "./job.js";
import { confirmed, inWords, once } from "./talk.js";
import { t } from "./words.js";

let stages = [];

/** `after` is called when a job was taken. */
export function startEnqueue(after) {
  byId("enqueue-queue").addEventListener("change", showKinds);
  byId("enqueue-form").addEventListener("submit", (event) => {
    event.preventDefault();
    once(event.submitter ?? byId("enqueue-form"), () => send(after));
  });
}

/** Offer these stages. */
export function offer(found) {
  const now = found.map((each) => each.name).join();
  if (now === stages.map((each) => each.name).join()) return;
  stages = found;
  const queues = [...new Set(stages.map((each) => each.queue))];
  options(byId("enqueue-queue"), queues.map((queue) => [queue, queue]));
  showKinds();
}

function showKinds() {
  const kinds = stages.filter((each) => each.queue === byId("enqueue-queue").value);
  options(byId("enqueue-kind"), kinds.map((each) => [each.stage, each.stage]));
}

async function send(after) {
  const note = byId("enqueue-note");
  note.classList.remove("bad");
  say(note, "");
  try {
    const taken = await enqueue();
    if (!taken) return;
    note.replaceChildren(el("span", { "data-i18n": "enqueue.taken" }, t("enqueue.taken")), " ", el("a", { href: `#job=${encodeURIComponent(taken)}` }, taken));
    find(taken);
    after();
  } catch (error) {
    note.classList.add("bad");
    say(note, error instanceof SyntaxError ? t("enqueue.notJson", { detail: error.message }) : inWords(error));
  }
}

async function enqueue() {
  const [queue, kind] = [byId("enqueue-queue").value, byId("enqueue-kind").value];
  const payload = JSON.parse(byId("enqueue-payload").value || "{}");
  if (queue === "cleanup" && !(await confirmed("enqueue", { kind }))) return "";
  return (await post(url`/queue/${queue}/jobs`, { kind, payload })).jobId;
}
