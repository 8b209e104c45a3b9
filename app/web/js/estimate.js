/* What a job would take, before it is submitted. */

import { h, table } from "./dom.js";
import { count, duration, rowsText, STAGES } from "./format.js";

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** An estimate that has succeeded. */
export function estimateShown(found) {
  const { seconds } = found;
  const stages = STAGES.filter(([name]) => seconds.stages[name]).map(([name, title]) => [title, ...range(seconds.stages[name])]);
  return [
    h("h3", {}, `About ${duration(seconds.likely)}`),
    h("p", {}, `${rowsText(found.rows)}, ${count(found.tokens)} tokens; the gradients of ${count(found.gradient_tokens)} tokens are still to be computed, on ${count(found.workers)} × ${found.device}. ${rowsText(found.selected)} would be picked. Needs ${bytes(found.memory_bytes)} of memory, and adds ${bytes(found.bytes)} to the store.`),
    found.rows_rejected ? h("p", {}, `${rowsText(found.rows_rejected)} can't be used${found.rows_sampled < found.rows ? `, as ${count(found.rows_sampled)} that were looked at tell` : ""}.`) : null,
    found.rows_overlapping === undefined ? null : h("p", {}, `Not picked, for text that they share with the evaluation set: ${rowsText(found.rows_overlapping)}.`),
    table("Time by stage", ["Stage", "Likely", "At least", "At most"], [...stages, ["In all", ...range(seconds)]]),
    h("p", { class: "soft" }, found.basis === "probe" ? "By the gradients of some rows, which were computed for this." : "By earlier jobs with this model on this device."),
    found.problems.map(({ field, message }) => h("p", { role: "note" }, `${field} ${message}.`)),
  ];
}

const range = ({ low, likely, high }) => [likely, low, high].map(duration);

function bytes(value) {
  const unit = Math.min(UNITS.length - 1, Math.floor(Math.log10(Math.max(value, 1)) / 3));
  return `${(value / 1000 ** unit).toFixed(unit ? 1 : 0)} ${UNITS[unit]}`;
}
