// The service's endpoints.
import { keep, recall } from "./kept.js";

const TIMEOUT = 15_000;

/** The service said no: its status and, from a problem+json, why. `scope`: what the key lacks. */
export class Refused extends Error {
  constructor(status, problem, scope) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.status = status;
    this.scope = scope;
  }
}

/** The service did not answer. */
export class Unreachable extends Error {}

let key = recall("sessionStorage", "key");
let onKeyWanted = () => {};

export const hasKey = () => key !== "";

/** Called where the service wants a key, or another one. */
export function whenKeyWanted(callback) {
  onKeyWanted = callback;
}

/** Use this API key until the tab is closed; an empty one is forgotten. */
export function useKey(value) {
  key = value;
  keep("sessionStorage", "key", value);
}

/** A path with each value percent-encoded: url`/queue/job/${queue}/${id}`. */
export function url(parts, ...values) {
  return parts.reduce((path, part, index) => path + encodeURIComponent(values[index - 1]) + part);
}

/** GET; the JSON of the answer. Throws Refused, Unreachable. */
export const get = (path) => ask(path);

/** POST; the JSON of the answer. Throws Refused, Unreachable. */
export function post(path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) });
}

async function ask(path, options = {}) {
  const answer = await open(path, { ...options, signal: AbortSignal.timeout(TIMEOUT) });
  try {
    return await answer.json();
  } catch (error) {
    throw new Unreachable(String(error));
  }
}

/** An answer whose body is still to be read. Throws Refused, Unreachable. */
export async function open(path, options = {}) {
  const used = key;
  const authorization = used ? { Authorization: `Bearer ${used}` } : {};
  let answer;
  try {
    answer = await fetch(`.${path}`, { ...options, cache: "no-store", headers: { ...options.headers, ...authorization } });
  } catch (error) {
    throw new Unreachable(String(error));
  }
  if (!answer.ok) throw await refusal(answer, used);
  return answer;
}

async function refusal(answer, used) {
  const problem = await answer.json().catch(() => ({}));
  const scope = /scope="([^"]*)"/.exec(answer.headers.get("WWW-Authenticate") ?? "")?.[1] ?? "";
  if (answer.status === 401 && used === key) onKeyWanted(hasKey()); // else there is another key by now
  return new Refused(answer.status, problem ?? {}, scope);
}
