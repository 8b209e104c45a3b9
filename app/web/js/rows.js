/* Rows of a job as text, page by page, and searched: those picked, best first; those that look wrong, worst first. */

import { get } from "./api.js";
import { announce, h } from "./dom.js";
import { count } from "./format.js";

const PAGE = 10;

const rank = (row) => [h("b", {}, `${count(row.rank)}`), ` row ${count(row.index)}`];
const figure = (words, value) => (value === null ? null : h("span", {}, `${words} ${value.toFixed(3).replace(/^-(0\.000)$/, "$1")}`));

export const PICKED = (id) => ({
  name: "rows",
  input: "search",
  path: `/jobs/${id}/rows`,
  title: "Picked rows",
  search: "Search the picked rows",
  order: "in the order of picking",
  total: (page) => page.selected,
  facts: (row) => [...rank(row), figure("gain", row.marginal_gain), figure("epsilon", row.epsilon), figure("conflict", row.conflict), row.suspect ? h("span", { class: "doubt" }, "looks wrong") : null],
});

const SUSPECTS = (id) => ({
  name: "suspects",
  input: "search-suspects",
  path: `/jobs/${id}/suspects`,
  title: "Suspects",
  search: "Search the suspects",
  order: "those that look most wrong first",
  total: (page) => page.listed,
  facts: (row) => [...rank(row), figure("suspicion", row.suspicion), figure("IFD", row.ifd), figure("loss", row.loss), row.picked ? h("span", { class: "doubt" }, "picked") : null, row.filtered ? h("span", {}, "filtered") : null],
});

/** The rows that look wrong, folded up: they are asked for when somebody unfolds them. */
export function suspectsSection(id, counted, signal) {
  const words = counted.rows === 1 ? "1 row looks wrong" : `${count(counted.rows)} rows look wrong`;
  const place = h("details", { class: "suspects", ontoggle: unfold }, h("summary", {}, `Suspects: ${words}, ${count(counted.picked)} picked`));
  return place;

  async function unfold() {
    place.removeEventListener("toggle", unfold);
    place.append(await rowsSection(SUSPECTS(id), signal));
  }
}

/** The section of one of a job's lists of rows, with the first of them in it. */
export async function rowsSection(kind, signal) {
  const list = h("ol", { class: "rows" });
  const status = h("p", { class: "soft" });
  const more = h("button", { type: "button", onclick: () => load(false) }, "More rows");
  const query = h("input", { id: kind.input, type: "search", maxLength: 200, autocomplete: "off" });
  let cursor = null;
  let asked = "";
  let turn = 0;
  let shown = 0;
  const form = h(
    "form",
    { role: "search", class: "search", onsubmit: (event) => (event.preventDefault(), (asked = query.value), load(true)) },
    h("label", { for: kind.input }, kind.search),
    query,
    h("button", { type: "submit" }, "Search"),
  );
  const section = h("section", { "aria-labelledby": kind.name }, h("h2", { id: kind.name }, kind.title), form, status, list, more);
  await load(true);
  return section;

  /** The next page; a search goes on through the file, request by request, until it has a page or the end. */
  async function load(anew) {
    const mine = ++turn;
    if (anew) {
      cursor = null;
      shown = 0;
      list.replaceChildren();
    }
    let wanted = PAGE;
    more.hidden = true;
    do {
      const parameters = new URLSearchParams({ limit: String(wanted) });
      if (asked) parameters.set("query", asked);
      if (cursor) parameters.set("cursor", cursor);
      let page;
      try {
        page = await get(`${kind.path}?${parameters}`, { signal });
      } catch (problem) {
        if (problem.name === "AbortError") return;
        status.textContent = problem.detail ?? problem.title;
        return;
      }
      if (mine !== turn) return;
      list.append(...page.items.map((row) => item(kind, row, asked)));
      cursor = page.next_cursor;
      wanted -= page.items.length;
      shown += page.items.length;
      const rows = shown === 1 ? "1 row" : `${count(shown)} rows`;
      status.textContent = asked
        ? `${rows} with “${asked}” among the first ${count(cursor ? page.searched : kind.total(page))} of ${count(kind.total(page))}`
        : `${rows} of ${count(kind.total(page))}, ${kind.order}`;
    } while (wanted > 0 && cursor);
    more.hidden = cursor === null;
    if (anew && asked) announce(status.textContent);
  }
}

function item(kind, row, query) {
  return h(
    "li",
    {},
    h("p", { class: "pick" }, kind.facts(row)),
    row.messages.map((message) => h("div", { class: `turn ${message.role}` }, h("span", { class: "role" }, message.role), h("div", { class: "text" }, marked(message.content, query)))),
    row.cut ? h("p", { class: "soft" }, "The rest is left out here.") : null,
  );
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
