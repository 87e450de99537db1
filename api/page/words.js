// Words, numbers and times in the reader's language.
import texts from "./texts.js";
import { keep, recall } from "./kept.js";

const LANGUAGES = Object.keys(texts);
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const ATTRIBUTES = { i18n: "", i18nPlaceholder: "placeholder", i18nLabel: "aria-label" };

let language = chosen();
let formats = {};

function chosen() {
  const wanted = [recall("localStorage", "language"), navigator.language.slice(0, 2).toLowerCase()];
  return wanted.find((each) => LANGUAGES.includes(each)) ?? "en";
}

export const currentLanguage = () => language;

/** Speak another language from now on. */
export function speak(wanted) {
  language = wanted;
  formats = {};
  keep("localStorage", "language", wanted);
}

/** A text, with {name} replaced by values.name. */
export function t(key, values = {}) {
  const text = texts[language][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** A text where there is one for this word of the service's, else the word. */
export const known = (prefix, word) => (`${prefix}.${word}` in texts[language] ? t(`${prefix}.${word}`) : String(word));

/** Put the words into what says in data-i18n… which it wants. */
export function translate(root = document) {
  document.documentElement.lang = locale();
  for (const [name, attribute] of Object.entries(ATTRIBUTES)) {
    const data = `data-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    for (const node of root.querySelectorAll(`[${data}]`)) {
      if (attribute) node.setAttribute(attribute, t(node.dataset[name]));
      else node.textContent = t(node.dataset[name]);
    }
  }
}

// A reader of pt-PT or en-GB has their own numbers and times.
function locale() {
  if (navigator.language.toLowerCase().startsWith(language)) return navigator.language;
  return language === "pt" ? "pt-BR" : "en";
}

function format(name, make) {
  formats[name] ??= make();
  return formats[name];
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** A count; a dash where there is none. */
export function count(value) {
  return isNumber(value) ? format("count", () => new Intl.NumberFormat(locale())).format(value) : "–";
}

/** Jobs a second. */
export function rate(value) {
  if (!isNumber(value)) return "–";
  const digits = value >= 100 || value === 0 ? 0 : value >= 1 ? 1 : 2;
  return format(`rate${digits}`, () => new Intl.NumberFormat(locale(), { maximumFractionDigits: digits })).format(value);
}

/** A share of 1 in per cent. */
export function percent(value) {
  if (!isNumber(value)) return "–";
  return format("percent", () => new Intl.NumberFormat(locale(), { style: "percent" })).format(value);
}

/** Seconds in at most two units. */
export function duration(seconds) {
  if (!isNumber(seconds)) return "–";
  if (seconds < 1 && seconds > 0) return `< ${unit(1, "second")}`;
  const whole = Math.round(seconds);
  const index = Math.min(UNITS.findIndex(([, size]) => whole >= size) >>> 0, UNITS.length - 1);
  const [name, size] = UNITS[index];
  const [nextName, nextSize] = UNITS[index + 1] ?? ["", 0];
  const rest = nextSize && whole < size * 10 ? Math.floor((whole % size) / nextSize) : 0;
  return unit(Math.floor(whole / size), name) + (rest ? ` ${unit(rest, nextName)}` : "");
}

function unit(value, name) {
  const style = { style: "unit", unit: name, unitDisplay: "narrow" };
  return format(name, () => new Intl.NumberFormat(locale(), style)).format(value);
}

/** A time (ms): of today without its date. */
export function time(ms) {
  if (!isNumber(ms)) return "–";
  const date = new Date(ms);
  const today = date.toDateString() === new Date().toDateString();
  const style = today ? { timeStyle: "medium" } : { dateStyle: "short", timeStyle: "medium" };
  return format(`time${today}`, () => new Intl.DateTimeFormat(locale(), style)).format(date);
}

/** How far a time (ms) is from now, either way. */
export function relative(ms) {
  if (!isNumber(ms)) return "–";
  const seconds = (ms - Date.now()) / 1000;
  return t(seconds < 0 ? "time.ago" : "time.in", { time: duration(Math.max(1, Math.abs(seconds))) });
}
