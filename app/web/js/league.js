/* The methods of a job side by side, with what proofs of the job say of them. */

import { h, table } from "./dom.js";
import { conflict, count, nats, percent } from "./format.js";

const said = (verdicts) => verdicts.map((one) => `${one.verdict.replaceAll("_", " ")} (${one.metric} against ${one.against})`).join(", ");

/** A section with the table; nothing where there is one method alone. */
export function leagueSection(found) {
  const { methods } = found;
  if (methods.length < 2) return "";
  const targeted = methods.some((one) => one.target_covered !== null);
  const sources = [...new Set(methods.flatMap((one) => Object.keys(one.sources)))];
  const proven = methods.some((one) => one.verdicts.length);
  const heads = ["Method", "Rows", "Tokens", "Log-det, nats", "Conflict", "Overlap", ...(targeted ? ["Target covered, nats", "Cosine to target"] : []), ...sources, ...(proven ? ["Proofs"] : [])];
  const lines = methods.map((one) => [
    one.requested ? `${one.method} (this job)` : one.method,
    count(Math.round(one.rows)),
    count(Math.round(one.tokens)),
    nats(one.log_det),
    conflict(one.mean_conflict),
    percent(one.overlap),
    ...(targeted ? [nats(one.target_covered), one.target_cosine.toFixed(3)] : []),
    ...sources.map((source) => percent(one.sources[source] ?? 0)),
    ...(proven ? [said(one.verdicts)] : []),
  ]);
  return h("section", { "aria-labelledby": "league" }, h("h2", { id: "league" }, "Methods side by side"), table("The methods", heads, lines));
}
