/* Rows of a job as text, page by page, and searched: those picked, best first; those that look wrong, worst first. */

import { get } from "./api.js";
import { announce, h } from "./dom.js";
import { count, rowsText } from "./format.js";

const PAGE = 10;

const rank = (row) => [h("b", {}, `${count(row.rank)}`), ` row ${count(row.index)}`];
const figure = (words, value) => (value === null ? null : h("span", {}, `${words} ${value.toFixed(3).replace(/^-(0\.000)$/, "$1")}`));
const from = (row) => (row.source === null || row.source === undefined ? null : h("span", {}, `from ${row.source}`));

export const PICKED = (id, sources) => ({
  name: "rows",
  input: "search",
  path: `/jobs/${id}/rows`,
  title: "Picked rows",
  search: "Search the picked rows",
  order: "in the order of picking",
  total: (page) => page.selected,
  sources: sources?.values.filter((one) => one.picked).map((one) => one.value) ?? [],
  least: { min_gain: "gain at least", min_conflict: "conflict at least" },
  facts: (row) => [...rank(row), from(row), figure("gain", row.marginal_gain), figure("epsilon", row.epsilon), figure("conflict", row.conflict), row.suspect ? h("span", { class: "doubt" }, "looks wrong") : null],
});

const SUSPECTS = (id) => ({
  name: "suspects",
  input: "search-suspects",
  path: `/jobs/${id}/suspects`,
  title: "Suspects",
  search: "Search the suspects",
  order: "those that look most wrong first",
  total: (page) => page.listed,
  sources: [],
  least: {},
  facts: (row) => [...rank(row), from(row), figure("suspicion", row.suspicion), figure("IFD", row.ifd), figure("loss", row.loss), figure("loss of the end", row.end_loss), row.picked ? h("span", { class: "doubt" }, "picked") : null, row.filtered ? h("span", {}, "filtered") : null],
});

/** The rows that look wrong, folded up: they are asked for when somebody unfolds them. */
export function suspectsSection(id, counted, signal) {
  const words = counted.rows === 1 ? "1 row looks wrong" : `${count(counted.rows)} rows look wrong`;
  const place = h("details", { class: "suspects", ontoggle: unfold }, h("summary", {}, `Suspects: ${words}, ${count(counted.picked)} picked`));
  return place;

  async function unfold() {
    place.removeEventListener("toggle", unfold);
    place.append((await rowsSection(SUSPECTS(id), signal)).section);
  }
}

/**
 * The section of one of a job's lists of rows, with the first of them in it; `show` narrows it to what parameters of
 * the API ask for, says so in words, and goes there.
 */
export async function rowsSection(kind, signal) {
  const list = h("ol", { class: "rows" });
  const status = h("p", { class: "soft" });
  const more = h("button", { type: "button", onclick: () => load(false) }, "More rows");
  const query = h("input", { id: kind.input, type: "search", maxLength: 200, autocomplete: "off" });
  const source = h("select", { id: `${kind.name}-source`, onchange: again }, h("option", { value: "" }, "any source"), kind.sources.map((value) => h("option", { value }, value)));
  const bounds = Object.entries(kind.least).map(([name, words]) => [name, words, h("input", { id: `${kind.name}-${name}`, inputMode: "decimal", autocomplete: "off", onchange: again })]);
  const narrowed = h("p", { class: "narrowed", hidden: true });
  let cursor = null;
  let asked = "";
  let behind = {};
  let turn = 0;
  let shown = 0;
  const form = h(
    "form",
    { role: "search", class: "search", onsubmit: (event) => (event.preventDefault(), again()) },
    h("label", { for: kind.input }, kind.search),
    query,
    kind.sources.length > 1 ? [h("label", { for: source.id, class: "unseen" }, "Source"), source] : null,
    bounds.map(([, words, input]) => h("label", { class: "bound" }, words, input)),
    h("button", { type: "submit" }, "Search"),
  );
  const section = h("section", { "aria-labelledby": kind.name }, h("h2", { id: kind.name }, kind.title), form, narrowed, status, list, more);
  await load(true);
  return { section, show };

  function again() {
    behind = {};
    narrowed.hidden = true;
    load(true);
  }

  function show(parameters, words) {
    query.value = "";
    for (const [, , input] of bounds) input.value = "";
    source.value = parameters.source ?? "";
    behind = parameters.source && kind.sources.includes(parameters.source) ? {} : parameters;
    narrowed.replaceChildren(`Of the figure: ${words} `, h("button", { type: "button", class: "link", onclick: () => ((source.value = ""), again()) }, "Show all"));
    narrowed.hidden = false;
    load(true);
    section.scrollIntoView({ block: "start" });
    announce(words);
  }

  /** What the form and a figure ask for, as parameters of the API. */
  function wanted(limit) {
    const parameters = new URLSearchParams({ limit: String(limit), ...behind });
    if (asked) parameters.set("query", asked);
    if (source.value) parameters.set("source", source.value);
    for (const [name, , input] of bounds) if (input.value.trim()) parameters.set(name, input.value.trim().replace(",", "."));
    if (cursor) parameters.set("cursor", cursor);
    return parameters;
  }

  /** The next page; a search goes on through the file, request by request, until it has a page or the end. */
  async function load(anew) {
    const mine = ++turn;
    if (anew) {
      cursor = null;
      asked = query.value;
      shown = 0;
      list.replaceChildren();
    }
    let left = PAGE;
    more.hidden = true;
    do {
      const parameters = wanted(left);
      let page;
      try {
        page = await get(`${kind.path}?${parameters}`, { signal });
      } catch (problem) {
        if (problem.name === "AbortError") return;
        status.textContent = problem.errors?.map((one) => `${kind.least[one.field] ?? one.field}: ${one.message}`).join("; ") || problem.detail || problem.title;
        return;
      }
      if (mine !== turn) return;
      list.append(...page.items.map((row) => item(kind, row, asked)));
      cursor = page.next_cursor;
      left -= page.items.length;
      shown += page.items.length;
      const rows = rowsText(shown);
      const narrow = ["query", "source", "first_rank", ...Object.keys(kind.least)].some((name) => parameters.has(name));
      const told = `${rows}${asked ? ` with “${asked}”` : " like that"} among the first ${count(cursor ? page.searched : kind.total(page))} of ${count(kind.total(page))}`;
      status.textContent = narrow ? told : `${rows} of ${count(kind.total(page))}, ${kind.order}`;
    } while (left > 0 && cursor);
    more.hidden = cursor === null;
    if (anew && asked) announce(status.textContent);
  }
}

function item(kind, row, query) {
  return h(
    "li",
    {},
    h("p", { class: "pick" }, kind.facts(row)),
    row.messages.map((message) => turn(message, query)),
    row.cut ? h("p", { class: "soft" }, "The rest is left out here.") : null,
  );
}

/** A turn of a conversation; code between fences is set as code, and wrapped. */
export function turn({ role, content }, query = "") {
  const parts = content.split(/^(```[^\n]*\n[\s\S]*?\n```)$/m);
  const text = parts.map((part, at) => (at % 2 ? h("code", { class: "block" }, marked(part, query)) : marked(part, query)));
  return h("div", { class: `turn ${role}` }, h("span", { class: "role" }, role), h("div", { class: "text" }, text));
}

/** Text with what was searched for marked. */
function marked(text, query) {
  if (!query) return text;
  const parts = [];
  const low = text.toLowerCase();
  const wanted = query.toLowerCase();
  if (low.length !== text.length) return text; // some letters change their length with their case: places would be off
  let at = 0;
  for (let found = low.indexOf(wanted); found >= 0 && parts.length < 200; found = low.indexOf(wanted, at)) {
    parts.push(text.slice(at, found), h("mark", {}, text.slice(found, found + wanted.length)));
    at = found + wanted.length;
  }
  return [...parts, text.slice(at)];
}
