/* The methods of a job side by side, with what proofs of the job say of them. */

import { h, table } from "./dom.js";
import { conflict, count, nats, percent } from "./format.js";

const said = (verdicts) => verdicts.map((one) => `${one.verdict.replaceAll("_", " ")} (${one.metric} against ${one.against})`).join(", ");
const number = (text) => h("td", { class: "number" }, text);
const method = (one) => (one.requested ? `${one.method} (this job)` : one.method);

/** A section with the table; nothing where there is one method alone. */
export function leagueSection({ methods }) {
  if (methods.length < 2) return "";
  const targeted = methods.some((one) => one.target_covered !== null);
  const proven = methods.some((one) => one.verdicts.length);
  const heads = ["Method", "Rows", "Tokens", "Log-det, nats", "Conflict", "Overlap", ...(targeted ? ["Target covered, nats", "Cosine to target"] : []), ...(proven ? ["Proofs"] : [])];
  const lines = methods.map((one) => [
    h("th", { scope: "row" }, method(one)),
    number(count(Math.round(one.rows))),
    number(count(Math.round(one.tokens))),
    number(nats(one.log_det)),
    number(conflict(one.mean_conflict)),
    number(percent(one.overlap)),
    ...(targeted ? [number(nats(one.target_covered)), number(one.target_cosine.toFixed(3))] : []),
    ...(proven ? [said(one.verdicts)] : []),
  ]);
  return h("section", { "aria-labelledby": "league" }, h("h2", { id: "league" }, "Methods side by side"), table("The methods", heads, lines), bySource(methods));
}

/** Sources are rows here: there may be many, and a table grows downwards. */
function bySource(methods) {
  const sources = [...new Set(methods.flatMap((one) => Object.keys(one.sources)))];
  if (!sources.length) return null;
  const lines = sources.map((source) => [h("th", { scope: "row" }, source), ...methods.map((one) => number(percent(one.sources[source] ?? 0)))]);
  return h("details", {}, h("summary", {}, "Where each method's picks are from"), table("Picks of each method by source", ["Source", ...methods.map(method)], lines));
}
