/* What to do with a finished job: its id, its files, and the lines that do the same from a shell or a program. */

import { apiKey } from "./api.js";
import { announce, h } from "./dom.js";

const PURPOSES = {
  rows: "the picked rows, as they are in the dataset",
  trl: "TRL",
  "llama-factory": "LLaMA-Factory",
  axolotl: "Axolotl",
  indices: "row numbers for Dataset.select",
};
const SUFFIX = { rows: "rows.jsonl" };
const DEFAULT_URL = "http://127.0.0.1:8000";

export function useSection(job, links) {
  const purpose = h("select", { id: "purpose", onchange: draw }, Object.entries(PURPOSES).map(([value, words]) => h("option", { value }, words)));
  const panels = h("div");
  const tabs = { CLI: shell, Python: python, curl };
  let open = "CLI";
  const section = h(
    "section",
    { class: "use", "aria-labelledby": "use" },
    h("h2", { id: "use" }, "Use it"),
    h("p", { class: "whole-id" }, "Job ", h("code", { id: "job-id" }, job.id), copyButton("Copy the id", () => job.id)),
    links,
    h("p", { class: "filters" }, h("label", { for: "purpose" }, "The same by command, for"), purpose),
    h("div", { role: "tablist", class: "tabs", "aria-label": "Where the lines run" }, Object.keys(tabs).map((name) => h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "lines", onclick: () => ((open = name), draw()), onkeydown: step }, name))),
    panels,
  );
  draw();
  return section;

  function draw() {
    const lines = tabs[open](job, purpose.value);
    for (const tab of section.querySelectorAll("[role=tab]")) {
      tab.setAttribute("aria-selected", String(tab.id === `tab-${open}`));
      tab.tabIndex = tab.id === `tab-${open}` ? 0 : -1;
    }
    panels.replaceChildren(h("div", { role: "tabpanel", id: "lines", "aria-labelledby": `tab-${open}`, class: "lines" }, h("pre", { tabIndex: 0 }, h("code", {}, lines)), copyButton("Copy the lines", () => lines)));
  }

  function step(event) {
    const names = Object.keys(tabs);
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    open = names[(names.indexOf(open) + by + names.length) % names.length];
    draw();
    document.getElementById(`tab-${open}`).focus();
  }
}

const base = () => document.baseURI.replace(/[#?].*$/, "").replace(/\/$/, "");
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const rowsFile = (job) => SUFFIX.rows.replace("jsonl", job.result.format);

function shell(job, purpose) {
  const where = base() === DEFAULT_URL ? "" : `export SPICE_API_URL=${quoted(base())}\n`;
  if (purpose === "rows") return `${where}spice download ${job.id} --rows -o ${rowsFile(job)}`;
  return `${where}spice export ${job.id} --format ${purpose} --out data`;
}

function python(job, purpose) {
  const url = base() === DEFAULT_URL ? "" : JSON.stringify(base());
  const act = {
    rows: `rows = client.rows("${job.id}").to_list()`,
    indices: `indices = client.subset("${job.id}").indices\n\npicked = dataset.select(indices)`.replace("\n\n", "\n    "),
  };
  return `from spice_client import SpiceClient\n\nwith SpiceClient(${url}) as client:\n    ${act[purpose] ?? `client.export("${job.id}", "${purpose}", "data")`}`;
}

function curl(job, purpose) {
  const key = apiKey() ? ' -H "Authorization: Bearer $SPICE_API_KEY"' : "";
  const get = (query, file) => `curl -fsS${key} ${quoted(`${base()}/jobs/${job.id}/subset?${query}`)} -o ${file}`;
  if (purpose === "indices") return get("format=csv", "picks.csv");
  const rows = get("rows=true", rowsFile(job));
  return purpose === "rows" ? rows : `${rows}\n# The files that ${PURPOSES[purpose]} takes are made out of these rows by the CLI and by Python.`;
}

/** A button that puts text on the clipboard, also where the page is not in a secure context. */
function copyButton(words, text) {
  const button = h("button", { type: "button", class: "copy", "aria-label": words, onclick: copy }, "Copy");
  let timer;
  return button;

  async function copy() {
    try {
      if (navigator.clipboard) await navigator.clipboard.writeText(text());
      else byHand();
      said("Copied");
    } catch {
      said("Not copied");
    }
  }

  function byHand() {
    const area = h("textarea", { class: "unseen", value: text() });
    button.after(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("the browser does not copy");
  }

  function said(outcome) {
    button.textContent = outcome;
    announce(outcome);
    clearTimeout(timer);
    timer = setTimeout(() => (button.textContent = "Copy"), 2000);
  }
}
