/* Two jobs side by side. */

import { get } from "./api.js";
import { h, table } from "./dom.js";
import { figure, widths } from "./figures.js";
import { conflict, count, nats, percent } from "./format.js";
import { flat } from "./job.js";
import { name } from "./jobs.js";

export async function compareView({ view, signal, parts: ids, arrived }) {
  const jobs = await Promise.all(ids.map((id) => get(`/jobs/${id}`, { signal })));
  const subsets = await Promise.all(ids.map((id) => smallSubset(jobs.find((job) => job.id === id), signal)));
  const place = h("div", { class: "pair" });
  const title = `${name(jobs[0])} and ${name(jobs[1])}`;
  view.replaceChildren(h("p", { class: "crumb" }, h("a", { href: "#/" }, "Jobs")), h("h1", { tabIndex: -1 }, "Two selections"), ...numbers(jobs, subsets), differences(jobs), place);
  const width = new URLSearchParams(widths(place, 2)).get("width");
  const drawn = await Promise.all(ids.map((id) => get(`/jobs/${id}/figures?width=${width}&curve_width=${width}`, { signal })));
  for (const kind of drawn[0].figures.map((one) => one.name)) {
    const both = drawn.map((one) => one.figures.find((found) => found.name === kind));
    place.append(...both.map((found, at) => (found ? figure({ ...found, title: `${found.title}: ${name(jobs[at])}` }, "h2") : h("p", { class: "soft" }, `${name(jobs[at])} has no figure of this kind.`))));
  }
  arrived(title);
}

const OVERLAP_UP_TO = 200_000;

/** The indices of a subset that is small enough to be compared here. */
async function smallSubset(job, signal) {
  if (!job.result || job.result.selected > OVERLAP_UP_TO) return null;
  return new Set((await get(`/jobs/${job.id}/subset`, { signal })).indices);
}

function numbers(jobs, subsets) {
  const results = jobs.map((job) => job.result);
  const row = (words, value) => [h("th", { scope: "row" }, words), ...results.map((result) => h("td", { class: "number" }, result ? value(result) : "no result"))];
  const shared = subsets.every(Boolean) && results[0].fingerprint === results[1].fingerprint ? [...subsets[0]].filter((index) => subsets[1].has(index)).length : null;
  return [
    table("The two in numbers", ["Result", ...jobs.map((job) => h("a", { href: `#/jobs/${job.id}` }, name(job)))], [
      row("Picked", (one) => count(one.selected)),
      row("Log det, nats", (one) => nats(one.log_det)),
      row("Proven share of the best", (one) => percent(one.certificate.value)),
      row("Mean conflict", (one) => conflict(one.mean_conflict)),
      row("Tokens read", (one) => count(one.tokens)),
    ]),
    h("p", {}, shared === null ? "Rows that both jobs picked are not counted, because the datasets differ or a subset is large." : `${count(shared)} rows are in both.`),
  ];
}

function differences(jobs) {
  const [one, other] = jobs.map((job) => new Map(["dataset", "model", "gradients", "selection"].flatMap((part) => flat(job[part], part))));
  const paths = [...new Set([...one.keys(), ...other.keys()])].filter((path) => one.get(path) !== other.get(path));
  if (!paths.length) return h("p", {}, "Their settings are the same.");
  return table("Settings that differ", ["Setting", ...jobs.map(name)], paths.map((path) => [h("th", { scope: "row" }, path), h("td", {}, one.get(path) ?? "not set"), h("td", {}, other.get(path) ?? "not set")]));
}
