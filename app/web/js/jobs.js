/* All jobs, newest first, as they go. */

import { get, sleep } from "./api.js";
import { announce, h, table } from "./dom.js";
import { FINAL, basename, count, nats, percent, progressText, stateText, when } from "./format.js";

const REFRESH_MS = 3000;
const STATES = ["queued", "running", "succeeded", "failed", "cancelled"];

export async function jobsView({ view, signal, arrived }) {
  let state = "";
  let more = [];
  let cursor = null;
  let turn = 0;
  const chosen = new Set();
  const list = h("div", { id: "jobs" });
  const compare = h("a", { class: "button", hidden: true }, "Compare the two");
  const filter = h("select", { id: "state", onchange: () => ((state = filter.value), (more = []), tried(load)) }, h("option", { value: "" }, "any state"), STATES.map((one) => h("option", {}, one)));
  const lost = h("p", { class: "lost" });
  const next = h("button", { type: "button", hidden: true, onclick: () => tried(loadMore) }, "Older jobs");
  const first = await page();
  view.replaceChildren(
    h("div", { class: "head" }, h("h1", { tabIndex: -1 }, "Jobs"), h("a", { class: "button main", href: "#/new" }, "New selection")),
    h("p", { class: "filters" }, h("label", { for: "state" }, "Show"), filter, compare),
    lost,
    list,
    next,
  );
  draw(first);
  arrived("Jobs");
  for (;;) {
    await sleep(REFRESH_MS, signal);
    if (!document.hidden) await tried(load);
  }

  /** A look that may fail; the next one comes by itself, so it is enough to say so. */
  async function tried(look) {
    try {
      await look();
      lost.textContent = "";
    } catch (problem) {
      if (problem.name === "AbortError") return;
      if (!problem.transient) throw problem;
      lost.textContent = `${problem.title}. Trying again`;
    }
  }

  function page(from) {
    const query = new URLSearchParams({ limit: "25" });
    if (state) query.set("state", state);
    if (from) query.set("cursor", from);
    return get(`/jobs?${query}`, { signal });
  }

  async function load() {
    const mine = ++turn;
    const found = await page();
    if (mine === turn) draw(found); // else another state was asked for meanwhile
  }

  async function loadMore() {
    const found = await page(cursor);
    more = [...more, ...found.items];
    cursor = found.next_cursor;
    next.hidden = cursor === null;
    draw(await page(), false);
    announce(`${more.length} older jobs`);
  }

  function draw(found, first = true) {
    if (first && more.length === 0) {
      cursor = found.next_cursor;
      next.hidden = cursor === null;
    }
    const known = new Set(found.items.map((job) => job.id));
    const jobs = [...found.items, ...more.filter((job) => !known.has(job.id))];
    const focused = document.activeElement?.id;
    list.replaceChildren(jobs.length ? rows(jobs) : empty());
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  function empty() {
    const words = state ? `No job is ${state}.` : "No job yet. A selection needs a dataset, a model that scores it and a budget.";
    return h("p", { class: "soft" }, words);
  }

  function rows(jobs) {
    return table(
      "Jobs",
      ["Compare", "State", "Job", "Dataset", "Picked", "Log det, nats", "Proven", "Submitted"],
      jobs.map((job) => {
        const result = job.result;
        const box = h("input", { type: "checkbox", id: `compare-${job.id}`, "aria-label": `Compare ${name(job)}`, checked: chosen.has(job.id), disabled: !result, onchange: () => choose(job.id, box.checked) });
        return [
          h("td", { class: "narrow" }, box),
          h("td", { class: `state ${job.state}` }, stateText(job.state), FINAL.has(job.state) ? null : h("small", {}, job.stage ? ` ${job.stage} ${progressText(job.progress)}` : "")),
          h("th", { scope: "row" }, h("a", { id: `job-${job.id}`, href: `#/jobs/${job.id}` }, name(job))),
          h("td", {}, job.dataset.uri ? basename(job.dataset.uri) : "registered"),
          h("td", { class: "number" }, result ? `${count(result.selected)} of ${count(result.rows_usable)}` : ""),
          h("td", { class: "number" }, result ? nats(result.log_det) : ""),
          h("td", { class: "number" }, result ? percent(result.certificate.value) : ""),
          h("td", { class: "soft" }, when(job.created_at)),
        ];
      }),
    );
  }

  function choose(id, on) {
    if (on) chosen.add(id);
    else chosen.delete(id);
    const [one, other, third] = [...chosen];
    compare.hidden = !other || Boolean(third);
    if (other) compare.href = `#/compare/${one}/${other}`;
  }
}

export const name = (job) => job.name ?? `job ${job.id.slice(0, 8)}`;
