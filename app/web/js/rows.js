/* The picked rows: best first, page by page, and searched. */

import { get } from "./api.js";
import { announce, h } from "./dom.js";
import { count } from "./format.js";

const PAGE = 10;

/** The section of a job's rows, with the first of them in it. */
export async function rowsSection(id, signal) {
  const list = h("ol", { class: "rows" });
  const status = h("p", { class: "soft" });
  const more = h("button", { type: "button", onclick: () => load(false) }, "More rows");
  const query = h("input", { id: "search", type: "search", maxLength: 200, autocomplete: "off" });
  let cursor = null;
  let asked = "";
  let turn = 0;
  let shown = 0;
  const form = h(
    "form",
    { role: "search", class: "search", onsubmit: (event) => (event.preventDefault(), (asked = query.value), load(true)) },
    h("label", { for: "search" }, "Search the picked rows"),
    query,
    h("button", { type: "submit" }, "Search"),
  );
  const section = h("section", { "aria-labelledby": "rows" }, h("h2", { id: "rows" }, "Picked rows"), form, status, list, more);
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
        page = await get(`/jobs/${id}/rows?${parameters}`, { signal });
      } catch (problem) {
        if (problem.name === "AbortError") return;
        status.textContent = problem.detail ?? problem.title;
        return;
      }
      if (mine !== turn) return;
      list.append(...page.items.map((row) => item(row, asked)));
      cursor = page.next_cursor;
      wanted -= page.items.length;
      shown += page.items.length;
      const rows = shown === 1 ? "1 row" : `${count(shown)} rows`;
      status.textContent = asked
        ? `${rows} with “${asked}” among the first ${count(cursor ? page.searched : page.selected)} of ${count(page.selected)}`
        : `${rows} of ${count(page.selected)}, in the order of picking`;
    } while (wanted > 0 && cursor);
    more.hidden = cursor === null;
    if (anew && asked) announce(status.textContent);
  }
}

function item(row, query) {
  return h(
    "li",
    {},
    h("p", { class: "pick" }, h("b", {}, `${count(row.rank)}`), ` row ${count(row.index)}`, h("span", {}, `gain ${row.marginal_gain.toFixed(3)}`), h("span", {}, `epsilon ${row.epsilon.toFixed(3)}`), h("span", {}, `conflict ${row.conflict.toFixed(3)}`)),
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
