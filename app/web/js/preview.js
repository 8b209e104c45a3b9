/* Rows as the model reads them: which tokens it learns, which it only sees. */

import { h } from "./dom.js";
import { count, percent, rowsText } from "./format.js";

const OPEN = 3;
const CONTEXT_PIXELS = 8;

/** A preview that has succeeded; `allowed` is the share of unusable rows that the job may have, `source` the column that tells where a row is from. */
export function previewRows(found, allowed = 0.05, source = null) {
  const used = found.rows.filter((row) => !row.rejected);
  const learned = used.reduce((sum, row) => sum + row.learned_tokens, 0);
  const tokens = used.reduce((sum, row) => sum + row.tokens, 0);
  return [
    verdict(found.rows.length - used.length, found.rows.length, allowed),
    h("p", {}, `${count(found.rows.length)} rows, read as ${found.shape.replace("_", " and ")}. `, used.length ? `${count(learned)} of ${count(tokens)} tokens are learned, the others are only seen.` : ""),
    unread(found.rows, source),
    h("p", { class: "legend" }, h("mark", { class: "learned" }, "Underlined"), " tokens are learned: the loss falls on them. ", h("span", { class: "masked" }, "Plain"), " ones are masked: the model sees them and learns nothing from them."),
    h("ol", { class: "preview", start: found.first_row }, found.rows.map((one, place) => row(one, place, source))),
  ].filter(Boolean);
}

/** What these rows would mean for the job; of ten rows, a share is a hint and no proof. */
function verdict(unusable, rows, allowed) {
  if (!unusable) return h("p", { class: "verdict good" }, rows === 1 ? "The row can be used." : `All ${count(rows)} rows can be used.`);
  const fails = unusable / rows > allowed;
  const words = `${count(unusable)} of ${count(rows)} rows can't be used.`;
  return h("p", { class: fails ? "verdict rejected" : "verdict" }, words, fails ? ` If the rest is like them, the job fails: at most ${percent(allowed, 0)} may be unusable.` : "");
}

/** Which fields nothing reads, told once for all rows. */
function unread(rows, source) {
  const counted = new Map();
  for (const name of rows.flatMap((one) => ignored(one, source))) counted.set(name, (counted.get(name) ?? 0) + 1);
  if (!counted.size) return null;
  return h("p", { class: "unread" }, `Nothing reads these fields: ${[...counted].map(([name, times]) => `${name} (${rowsText(times)})`).join(", ")}. Choose the columns above if one of them should be read.`);
}

/** The source of a row is no part of what the model reads, and yet it is read: for the figure by source. */
const ignored = (found, source) => (found.ignored ?? []).filter((name) => name !== source);

function row(found, place, source) {
  if (found.rejected) return h("li", { class: "rejected" }, `Row ${count(found.row)} can't be used: ${found.rejected.replaceAll("_", " ")}${found.message ? ` (${found.message})` : ""}.`);
  const about = `Row ${count(found.row)}: ${count(found.tokens)} tokens, ${count(found.learned_tokens)} learned${found.truncated ? ", the end is cut off at the length limit" : ""}${ignored(found, source).length ? `; nothing reads ${ignored(found, source).join(", ")}` : ""}`;
  const rest = found.tokens - found.pieces.length;
  return h(
    "li",
    {},
    h("details", { open: place < OPEN, ontoggle: toTheLearned }, h("summary", {}, about), h("div", { class: "tokens", tabIndex: 0, role: "group", "aria-label": `Tokens of row ${found.row}` }, runs(found), rest ? h("p", { class: "soft" }, `and ${count(rest)} further tokens`) : null)),
  );
}

/** Where a long row is opened, begin shortly before what is learned: that is what a preview is looked at for. */
function toTheLearned({ target }) {
  const box = target.querySelector(".tokens");
  const learned = box.querySelector(".learned");
  if (!learned) return;
  const begins = learned.offsetTop - box.offsetTop;
  const hidden = begins + learned.offsetHeight - box.clientHeight;
  if (hidden > 0) box.scrollTop = Math.min(hidden + CONTEXT_PIXELS, begins - CONTEXT_PIXELS);
}

/** Tokens in runs of one kind, so that the kind is said once for each run. */
function runs(found) {
  const elements = [];
  let at = 0;
  while (at < found.pieces.length) {
    const learned = found.learned[at];
    let end = at;
    while (end < found.pieces.length && found.learned[end] === learned) end += 1;
    const tokens = found.pieces.slice(at, end).map((piece) => h("span", { class: piece ? "token" : "token empty" }, piece.replaceAll("\n", "↵\n")));
    elements.push(h(learned ? "mark" : "span", { class: learned ? "learned" : "masked" }, h("span", { class: "unseen" }, learned ? "learned: " : "masked: "), tokens));
    at = end;
  }
  return elements;
}
