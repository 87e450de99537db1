// /openapi.json, to be read: operations by group, then schemas. All of it goes in as text.
import { byId, el, say } from "./dom.js";

let whole; // the document

async function show() {
  const answer = await fetch("/openapi.json");
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  whole = await answer.json();
  say(byId("version"), whole.info.version);
  byId("about").replaceChildren(...prose(whole.info.description));
  byId("operations").append(...whole.tags.map(group));
  byId("schemas").append(...Object.entries(whole.components.schemas).map(schemaBox));
  byId("contents").append(...contents());
  byId("find").addEventListener("input", find);
  window.addEventListener("hashchange", arrive);
  arrive();
}

/** What refers to another part is that part. */
function resolved(part) {
  if (!part.$ref) return part;
  return part.$ref.slice(2).split("/").reduce((found, name) => found[name], whole);
}

function operationsOf(tag) {
  return Object.entries(whole.paths).flatMap(([path, item]) =>
    Object.entries(item)
      .filter(([, operation]) => operation.tags.includes(tag))
      .map(([method, operation]) => ({ path, method, operation })),
  );
}

function group({ name, description }) {
  const title = el("h2", { class: "group-title", id: `group-${name.replaceAll(" ", "-")}` }, name);
  const boxes = operationsOf(name).map(operationBox);
  return el("section", { "aria-labelledby": title.id }, el("div", {}, title, el("p", { class: "note" }, description)), ...boxes);
}

function operationBox({ path, method, operation }) {
  const title = el("h3", { id: `${operation.operationId}-title` }, badge(method), el("span", { class: "path" }, path));
  return el(
    "article",
    { class: "operation", id: operation.operationId, tabindex: -1, "aria-labelledby": title.id },
    title,
    el("p", {}, operation.summary, ". ", el("span", { class: "note" }, scope(operation))),
    ...(operation.description ? prose(operation.description) : []),
    ...parameters(operation.parameters ?? []),
    ...body(operation.requestBody),
    el("h4", {}, "Answers"),
    el("table", { class: "fields" }, ...Object.entries(operation.responses).map(answerRow)),
    ...answerExamples(operation.responses),
  );
}

function badge(method) {
  return el("span", { class: `method ${method}` }, method.toUpperCase());
}

function scope({ security }) {
  const scopes = security.flatMap((each) => Object.values(each).flat());
  return scopes.length ? `Needs a key with the scope ${scopes.join(", ")}.` : "Needs no key.";
}

function parameters(given) {
  if (!given.length) return [];
  const rows = given.map((each) => {
    const about = words(`In the ${each.in}. ${each.description} `);
    if (each.example !== undefined) about.push("Example: ", el("code", {}, String(each.example)));
    return row(each.name, each.required, each.schema, about);
  });
  return [el("h4", {}, "Parameters"), el("table", { class: "fields" }, ...rows)];
}

function body(given) {
  if (!given) return [];
  const [[kind, content]] = Object.entries(given.content);
  const title = el("h4", {}, `Body (${kind}${given.required ? "" : "; may be left out"})`);
  const examples = Object.entries(content.examples ?? {}).map(([name, { value }]) => example(`Example: ${name}`, value));
  return [title, el("p", {}, ...type(content.schema)), ...examples];
}

function answerRow([status, reference]) {
  const answer = resolved(reference);
  const about = words(answer.description);
  const headers = Object.keys(answer.headers ?? {});
  if (headers.length) about.push(el("div", { class: "note" }, `Headers: ${headers.join(", ")}`));
  const kinds = Object.entries(answer.content ?? {});
  const content = kinds.length ? [...type(kinds[0][1].schema), el("div", { class: "note" }, kinds.map(([kind]) => kind).join(", "))] : ["no body"];
  return el("tr", {}, el("th", { scope: "row" }, status), el("td", { class: "type" }, ...content), el("td", {}, ...about));
}

function answerExamples(responses) {
  return Object.entries(responses).flatMap(([status, reference]) =>
    Object.values(resolved(reference).content ?? {})
      .filter((content) => content.example !== undefined)
      .map((content) => example(`Example of ${status}`, content.example)),
  );
}

function example(title, value) {
  return el("details", {}, el("summary", {}, title), el("pre", { class: "example", tabindex: 0 }, JSON.stringify(value, null, 2)));
}

function schemaBox([name, schema]) {
  const title = el("h3", { id: `${name}-title` }, name);
  const must = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([field, form]) => row(field, must.has(field), form, notes(form)));
  return el(
    "article",
    { class: "schema", id: anchor(name), tabindex: -1, "aria-labelledby": title.id },
    title,
    ...(schema.description ? prose(schema.description) : []),
    rows.length ? el("table", { class: "fields" }, ...rows) : el("p", { class: "note" }, "No fields."),
    ...(schema.additionalProperties === false ? [el("p", { class: "note" }, "Takes no other fields.")] : []),
  );
}

function row(name, required, schema, about) {
  const must = required ? [" ", el("span", { class: "must" }, "required")] : [];
  return el("tr", {}, el("th", { scope: "row" }, name, ...must), el("td", { class: "type" }, ...type(schema)), el("td", {}, ...about));
}

function anchor(name) {
  return `schema-${name}`;
}

/** A schema in a line: its type, with a link for each schema that has a name. */
function type(schema) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return [el("a", { href: `#${anchor(name)}` }, name)];
  }
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.flatMap((each, place) => [...(place ? [" or "] : []), ...type(each)]);
  if (schema.const !== undefined) return [el("code", {}, JSON.stringify(schema.const))];
  if (schema.enum) return [el("code", {}, schema.enum.map((each) => JSON.stringify(each)).join(" | "))];
  if (schema.type === "array") return ["list of (", ...type(schema.items ?? {}), ")", bounds(schema)];
  return [(schema.format ? `${schema.type} (${schema.format})` : schema.type) ?? "anything", bounds(schema)];
}

const BOUNDS = {
  minLength: "at least %s characters",
  maxLength: "at most %s characters",
  minItems: "at least %s",
  maxItems: "at most %s",
  minimum: "from %s",
  exclusiveMinimum: "above %s",
  maximum: "to %s",
  exclusiveMaximum: "below %s",
  pattern: "matching %s",
};

function bounds(schema) {
  const said = Object.entries(BOUNDS).filter(([key]) => schema[key] !== undefined).map(([key, text]) => text.replace("%s", () => schema[key]));
  return said.length ? `, ${said.join(", ")}` : "";
}

function notes(schema) {
  const about = schema.description ? words(`${schema.description} `) : [];
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") about.push(`Default: ${JSON.stringify(schema.default)}`);
  return about;
}

/** Paragraphs, with code in backticks. */
function prose(text) {
  return text.split("\n\n").map((paragraph) => el("p", {}, ...words(paragraph)));
}

function words(text) {
  return text.split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part));
}

function contents() {
  const groups = whole.tags.flatMap(({ name }) => [
    el("h2", {}, name),
    ...operationsOf(name).map(({ path, method, operation }) => entry(operation.operationId, `${method.toUpperCase()} ${path}`, operation.summary)),
  ]);
  return [...groups, el("h2", {}, "schemas"), ...Object.keys(whole.components.schemas).map((name) => entry(anchor(name), name, ""))];
}

function entry(id, text, more) {
  return el("a", { href: `#${id}`, title: more, "data-find": `${text} ${more}`.toLowerCase() }, text);
}

/** Leave only what has the words in it, here and in the contents. */
function find() {
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const link of byId("contents").querySelectorAll("a")) {
    link.hidden = !words.every((word) => link.dataset.find.includes(word));
    byId(link.hash.slice(1)).hidden = link.hidden;
    count += link.hidden ? 0 : 1;
  }
  say(byId("found"), words.length ? `${count} found` : "");
}

/** What an address names was not there when the browser looked for it; who goes there by keyboard goes on from there. */
function arrive() {
  const there = location.hash && byId(decodeURIComponent(location.hash.slice(1)));
  if (!there) return;
  there.hidden = false;
  there.scrollIntoView();
  there.focus({ preventScroll: true });
}

show().catch((error) => say(byId("about"), `The document cannot be read: ${error.message}`));
