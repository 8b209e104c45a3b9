/* Several jobs beside one another: figures with shared axes, the rows that they share, the settings that differ. */

import { get } from "./api.js";
import { chart } from "./chart.js";
import { h, table } from "./dom.js";
import { widths } from "./figures.js";
import { conflict, count, nats, percent } from "./format.js";
import { asked } from "./job.js";
import { listAddress, name } from "./jobs.js";

const POINTS = 400;
const NAMED = { class: "named" };

export async function compareView({ view, signal, parts: [path], arrived }) {
  const ids = [...new Set(path.split("/"))];
  const look = (part) => Promise.all(ids.map((id) => get(`/jobs/${id}${part}`, { signal })));
  const jobs = (await look("")).map((job, at) => ({ ...job, letter: String.fromCharCode(65 + at), at }));
  const title = `${jobs.length} selections`;
  const place = h("div", { class: "figures" }, h("h2", { id: "figures", class: "unseen" }, "Figures"));
  const unfinished = jobs.filter((job) => !job.result);
  view.replaceChildren(
    h("p", { class: "crumb" }, h("a", { href: listAddress() }, "Jobs")),
    h("h1", { tabIndex: -1 }, title),
    numbers(jobs),
    differences(jobs),
  );
  arrived(title);
  if (unfinished.length) {
    view.append(h("p", { class: "soft" }, `Without a result: ${unfinished.map((job) => `${label(job)} (${job.state})`).join(", ")}.`));
    return;
  }
  view.append(place);
  const query = new URLSearchParams(ids.slice(1).map((id) => ["other", id]));
  const [curves, conflicts, statistics, shared] = await Promise.all([look(`/curve?points=${POINTS}`), look("/conflicts"), look("/statistics"), get(`/jobs/${ids[0]}/comparison?${query}`, { signal })]);
  place.before(...overlap(jobs, shared));
  place.append(...figures(jobs, curves, conflicts, statistics, shared, roomIn(place)), ...sources(jobs, statistics));
}

const label = (job) => `${job.letter} ${name(job)}`;

function numbers(jobs) {
  const row = (words, value) => [h("th", { scope: "row" }, words), ...jobs.map((job) => h("td", { class: "number" }, job.result ? value(job.result) : ""))];
  return table("The selections in numbers", ["Result", ...jobs.map((job) => h("a", { href: `#/jobs/${job.id}` }, label(job)))], [
    row("Picked", (one) => count(one.selected)),
    row("Log det, nats", (one) => nats(one.log_det)),
    row("Proven share of the best", (one) => percent(one.certificate.value)),
    row("Mean conflict", (one) => conflict(one.mean_conflict)),
    row("Tokens of the picks", (one) => (one.tokens_selected === null ? "" : count(one.tokens_selected))),
  ], NAMED);
}

function differences(jobs) {
  const settings = jobs.map((job) => new Map(asked(job)));
  const paths = [...new Set(settings.flatMap((one) => [...one.keys()]))].filter((path) => new Set(settings.map((one) => one.get(path))).size > 1);
  if (!paths.length) return h("p", {}, "Their settings are the same.");
  return table("Settings that differ", ["Setting", ...jobs.map(label)], paths.map((path) => [h("th", { scope: "row" }, breakable(path)), ...settings.map((one) => h("td", {}, one.get(path) ?? "not set"))]), NAMED);
}

/** A dotted name that a narrow column breaks between its words. */
const breakable = (path) => path.split(/(?<=[._])/).flatMap((part) => [part, h("wbr")]);

function overlap(jobs, found) {
  if (!found.same_rows) return [h("p", {}, "The jobs read different data, so row numbers do not name the same rows, and none are counted.")];
  const rows = found.jobs.map((one, at) => [
    h("th", { scope: "row" }, label(jobs[at])),
    h("td", { class: "number" }, count(one.selected)),
    ...one.shared.map((rows, other) => h("td", { class: "number" }, other === at ? "" : `${count(rows)} (${percent(rows / Math.max(1, one.selected), 0)})`)),
    h("td", { class: "number" }, count(one.alone)),
    h("td", { class: "soft" }, alone(one)),
  ]);
  const words = `${count(found.in_all)} of ${count(found.in_any)} rows are in ${jobs.length === 2 ? "both" : `all ${jobs.length}`}.`;
  return [h("p", { class: "words" }, words), table("Rows that the selections share", ["Picked by", "Rows", ...jobs.map((job) => `also by ${job.letter}`), "by it alone", "which rows"], rows)];
}

function alone(one) {
  const named = one.alone_rows.slice(0, 12).map(count).join(" · ");
  return one.alone > 12 ? `${named} and ${count(one.alone - 12)} more` : named;
}

/** Pixels that a figure has, and the wide one. */
function roomIn(place) {
  const { width, curve_width: wide } = Object.fromEntries(new URLSearchParams(widths(place, 2)));
  return { width: Number(width), wide: Number(wide) };
}

function figures(jobs, curves, conflicts, statistics, shared, { width, wide }) {
  const lines = (points) => jobs.map((job, at) => ({ name: label(job), points: points(at) }));
  const picks = { label: "rows picked", format: (value) => count(Math.round(value)), whole: true };
  const share = { label: "share", format: (value) => `${Number((100 * value).toPrecision(3))}%` };
  const scale = shared.same_scale ? "" : " Sketches or alpha differ, so these are different scales: compare the shapes, not the heights.";
  const drawn = [
    chart({ width: wide, name: "information curve", title: "Information, log det in nats", caption: `What the first picks hold together.${scale}`, x: picks, y: { format: short }, lines: lines((at) => [[0, 0], ...curves[at].rank.map((rank, place) => [rank, curves[at].log_det[place]])]) }),
    chart({ width, name: "gains", title: "Marginal gain of each pick, nats", caption: `What the pick of that rank added.${scale}`, x: picks, y: { format: short }, lines: lines((at) => curves[at].rank.map((rank, place) => [rank, curves[at].marginal_gains[place]])) }),
    chart({ width, name: "lengths", title: "Picks of at most so many tokens", caption: "A line further to the left picks shorter rows.", x: { label: "tokens of a row", format: (value) => count(Math.round(value)), whole: true }, y: share, lines: lines((at) => below(statistics[at].lengths.edges, statistics[at].lengths.picked.counts)), steps: true }),
  ];
  if (conflicts.every((one) => one.max === 0)) drawn.push(h("p", { class: "soft" }, "No pick of these jobs is in conflict with the picks before it."));
  else drawn.push(chart({ width, name: "conflict", title: "Picks in a conflict above", caption: "A lower line is a selection whose gradients agree more.", x: { label: "conflict", format: (value) => value.toFixed(2) }, y: share, lines: lines((at) => above(conflicts[at])), steps: true }));
  return drawn;
}

const short = (value) => String(Number(Number(value).toPrecision(3)));

/** The share of all counts up to each edge. */
function below(edges, counts) {
  const all = counts.reduce((sum, one) => sum + one, 0) || 1;
  let sum = 0;
  return edges.map((edge, at) => [edge, (sum += at ? counts[at - 1] : 0) / all]);
}

/** The share of all picks with a conflict beyond each edge; most have none at all, which the first bin does not tell. */
function above({ positive_fraction: positive, histogram: { edges, counts } }) {
  const all = counts.reduce((sum, one) => sum + one, 0) || 1;
  const last = counts.findLastIndex((one) => one > 0) + 1;
  let left = all;
  return edges.slice(0, last + 1).map((edge, at) => [edge, at ? (left -= counts[at - 1]) / all : positive]);
}

function sources(jobs, statistics) {
  if (!statistics.some((one) => one.sources)) return [];
  const picked = statistics.map((one) => new Map((one.sources?.values ?? []).map((source) => [source.value, source.picked])));
  const sums = statistics.map((one) => one.lengths.picked.counts.reduce((sum, rows) => sum + rows, 0) || 1);
  const names = [...new Set(picked.flatMap((one) => [...one.keys()]))];
  const rows = names.map((source) => [h("th", { scope: "row" }, source), ...picked.map((one, at) => h("td", { class: "number" }, `${count(one.get(source) ?? 0)} (${percent((one.get(source) ?? 0) / sums[at], 0)})`))]);
  return [h("section", { class: "by-source" }, h("h2", {}, "Picks by source"), table("Picks by source", ["Source", ...jobs.map(label)], rows, NAMED))];
}
