/* Why a row was picked, or was not. */

import { get } from "./api.js";
import { announce, h } from "./dom.js";
import { count } from "./format.js";
import { turn } from "./rows.js";

/** A section that answers for one row at a time, by its number. */
export function whySection(id, rows, signal) {
  const number = h("input", { id: "why-row", inputMode: "numeric", autocomplete: "off", placeholder: `0 to ${count(rows - 1)}` });
  const answer = h("div", { id: "why-answer" });
  let turns = 0;
  return h(
    "section",
    { "aria-labelledby": "why" },
    h("h2", { id: "why" }, "Why not this row?"),
    h(
      "form",
      { class: "search", onsubmit: (event) => (event.preventDefault(), ask()) },
      h("label", { for: number.id }, "Row number, from 0"),
      number,
      h("button", { type: "submit" }, "Ask"),
    ),
    answer,
  );

  async function ask() {
    const row = number.value.replaceAll(/[,\s]/g, "");
    const mine = ++turns;
    if (!/^\d+$/.test(row)) return say("A row number is a whole number, such as 17.");
    answer.replaceChildren(h("p", { class: "soft" }, `Looking for row ${count(Number(row))}`));
    try {
      const found = await get(`/jobs/${id}/rows/${row}/why`, { signal });
      if (mine !== turns) return; // another row was asked for since
      const { nearest } = found;
      answer.replaceChildren(
        h("p", {}, h("b", {}, `Row ${count(found.row)} `), h("span", { class: "soft" }, found.fate.replace("_", " "))),
        ...found.words.map((words) => h("p", { class: "words" }, words)),
        nearest ? h("div", { class: "nearest" }, h("p", { class: "pick" }, h("b", {}, count(nearest.rank)), ` row ${count(nearest.row)}, the nearest pick`), nearest.messages.map((message) => turn(message))) : "",
      );
      announce(found.words.join(" "));
    } catch (problem) {
      if (problem.name !== "AbortError" && mine === turns) say(problem.errors?.[0] ? `The row ${problem.errors[0].message}.` : (problem.detail ?? problem.title));
    }
  }

  function say(words) {
    answer.replaceChildren(h("p", { class: "failure" }, words));
    announce(words);
  }
}
