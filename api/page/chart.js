// Small charts of the last minutes, in SVG. What was seen is kept in the page, and nowhere else.
import { count, duration, rate, t } from "./words.js";

export const MINUTES = 5;
const WIDTH = 100;
const HEIGHT = 24;
const SVG = "http://www.w3.org/2000/svg";

const series = new Map();

/** Remember figures ({depth, in, out}) of a name at a time in ms. */
export function remember(name, at, figures) {
  const points = series.get(name) ?? [];
  if (points.at(-1)?.at !== at) points.push({ at, ...figures });
  const oldest = at - MINUTES * 60_000;
  while (points[0].at < oldest) points.shift();
  series.set(name, points);
}

/** An empty chart: of "depth" (an area), or of "rates" (two lines). */
export function chart(kind) {
  const svg = made("svg", { class: `chart ${kind}`, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  for (const name of kind === "depth" ? ["area", "line"] : ["in", "out"]) svg.append(made("path", { class: name }));
  return svg;
}

/** Draw what is remembered of a name. */
export function draw(svg, name) {
  const points = series.get(name) ?? [];
  const depths = svg.classList.contains("depth");
  const most = Math.max(1e-9, ...points.flatMap((point) => (depths ? [point.depth] : [point.in, point.out])));
  // A flat line of nothing lies on the ground, and a few jobs do not look like a flood.
  const top = depths ? Math.max(most, 5) : Math.max(most, 0.1);
  if (depths) drawDepth(svg, points, top);
  else drawRates(svg, points, top);
  svg.setAttribute("aria-label", label(points, depths));
}

function drawDepth(svg, points, top) {
  const line = path(points, "depth", top);
  const [area, edge] = svg.children;
  edge.setAttribute("d", line);
  area.setAttribute("d", line && `${line}V${HEIGHT}H${x(points[0], points).toFixed(1)}Z`);
}

function drawRates(svg, points, top) {
  for (const line of svg.children) line.setAttribute("d", path(points, line.getAttribute("class"), top));
}

function path(points, field, top) {
  const height = (value) => (HEIGHT - 1 - (Math.max(0, value) / top) * (HEIGHT - 2)).toFixed(1);
  return points.map((point, index) => `${index ? "L" : "M"}${x(point, points).toFixed(1)} ${height(point[field])}`).join("");
}

const x = (point, points) => WIDTH - ((points.at(-1).at - point.at) / (MINUTES * 60_000)) * WIDTH;

function label(points, depths) {
  if (!points.length) return t("chart.none");
  const last = points.at(-1);
  const span = duration(Math.max(1, (last.at - points[0].at) / 1000));
  if (!depths) return t("chart.rates", { in: rate(last.in), out: rate(last.out) });
  const found = points.map((point) => point.depth);
  return t("chart.depth", { now: count(last.depth), least: count(Math.min(...found)), most: count(Math.max(...found)), span });
}

function made(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
