/* All jobs, newest first, as they go. What is shown is in the address, so that Back and a bookmark find it again. */

import { get, getInTheEnd, post, sleep } from "./api.js";
import { announce, failure, h, table } from "./dom.js";
import { FINAL, basename, briefly, conflict, count, duration, nats, percent, progressText, rowsText, stateText } from "./format.js";

const REFRESH_MS = 3000;
const TYPING_MS = 300;
const PAGE = 25;
const MOST_COMPARED = 8;
const STATES = ["queued", "running", "succeeded", "failed", "cancelled"];
const EMPTY = { queued: "No job is waiting.", running: "No job is running.", succeeded: "No job has succeeded.", failed: "No job has failed.", cancelled: "No job was cancelled." };

/** Columns by which the loaded jobs may be ordered: what orders them, and where the order begins. */
const ORDERS = {
  name: { of: (job) => name(job).toLowerCase(), down: false },
  method: { of: (job) => job.selection.method, down: false },
  picked: { of: (job) => job.result?.selected ?? -1, down: true },
  "log det": { of: (job) => job.result?.log_det ?? -1, down: true },
  proven: { of: (job) => job.result?.certificate.value ?? -1, down: true },
  took: { of: (job) => took(job) ?? -1, down: true },
};

const WHAT_HAPPENS = [
  ["Read", "Every row becomes tokens, as the model's own chat template writes it."],
  ["Gradients", "For each row: what would the model learn from it? This takes most of the time."],
  ["Select", "One row after another, always the one that adds most and contradicts least."],
  ["Use", "Row numbers or rows, a curve, and a proven bound on how good the subset is."],
];
const LIST = /^(#\/?(\?.*)?)?$/;

/** Where the list was left: its address, how many pages were loaded, how far it was scrolled. */
let left = { hash: "#/", pages: 1, top: 0 };
export const listAddress = () => left.hash;

export async function jobsView({ view, signal, arrived, from }) {
  const asked = new URLSearchParams(location.hash.split("?")[1] ?? "");
  const state = STATES.includes(asked.get("state")) ? asked.get("state") : "";
  const order = asked.get("sort")?.replace(/^-/, "") in ORDERS ? asked.get("sort") : "";
  let typed = asked.get("name") ?? "";
  let more = [];
  let pages = 1;
  let cursor = null;
  let total = null;
  let turn = 0;
  let typing;
  let shown = [];
  const chosen = new Map();
  const list = h("div", { id: "jobs" });
  const compare = h("a", { class: "button", hidden: true });
  const filter = h("select", { id: "state", onchange: () => go({ state: filter.value }) }, h("option", { value: "" }, "any state"), STATES.map((one) => h("option", { selected: one === state }, one)));
  const search = h("input", { id: "name", type: "search", value: typed, maxLength: 200, placeholder: "name begins with", autocomplete: "off", oninput: type });
  const lost = h("p", { class: "lost" });
  const status = h("p", { class: "soft", id: "total" });
  const next = h("button", { type: "button", hidden: true, onclick: () => tried(loadMore) }, "Older jobs");
  view.replaceChildren(
    h("div", { class: "head" }, h("h1", { tabIndex: -1 }, "Jobs"), h("a", { class: "button main", href: "#/new" }, "New selection")),
    h("p", { class: "filters" }, h("label", { for: "state" }, "Show"), filter, h("label", { for: "name", class: "unseen" }, "Name begins with"), search, compare),
    lost,
    list,
    status,
    next,
  );
  const back = from && !LIST.test(from) && left.hash === (location.hash || "#/") ? left : null;
  remember();
  arrived("Jobs");
  draw(await getInTheEnd(query(), signal, (problem) => (lost.textContent = problem ? `${problem.title}. Trying again` : "")));
  for (let page = 1; back && page < back.pages && cursor; page += 1) await tried(loadMore);
  if (back) scrollTo(0, back.top);
  addEventListener("scroll", remember, { signal, passive: true });
  for (;;) {
    await sleep(REFRESH_MS, signal);
    if (!document.hidden) await tried(load);
  }

  function remember() {
    if (!signal.aborted && LIST.test(location.hash)) left = { hash: location.hash || "#/", pages, top: scrollY };
  }

  /** Another filter or order is another address; what is typed changes the address it is typed at. */
  function go(change, replace = false) {
    const parameters = new URLSearchParams(Object.entries({ state, name: typed, sort: order, ...change }).filter(([, value]) => value));
    const hash = `#/${parameters.size ? `?${parameters}` : ""}`;
    if (replace) history.replaceState(null, "", hash);
    else location.hash = hash;
  }

  function type() {
    clearTimeout(typing);
    typing = setTimeout(() => {
      if (signal.aborted) return;
      typed = search.value.trim();
      more = [];
      pages = 1;
      go({}, true);
      remember();
      tried(load);
    }, TYPING_MS);
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

  function query(after) {
    const parameters = new URLSearchParams({ limit: String(PAGE) });
    if (state) parameters.set("state", state);
    if (typed) parameters.set("name_prefix", typed);
    if (after) parameters.set("cursor", after);
    else parameters.set("total", "true");
    return `/jobs?${parameters}`;
  }

  async function load() {
    const mine = ++turn;
    const found = await get(query(), { signal });
    if (mine === turn) draw(found); // else something else was asked for meanwhile
  }

  async function loadMore() {
    const found = await get(query(cursor), { signal });
    more = [...more, ...found.items];
    pages += 1;
    cursor = found.next_cursor;
    draw(await get(query(), { signal }), false);
    remember();
    announce(`${more.length} older jobs`);
  }

  function draw(found, first = true) {
    if (first && more.length === 0) cursor = found.next_cursor;
    next.hidden = cursor === null;
    total = found.total ?? total;
    const known = new Set(found.items.map((job) => job.id));
    shown = ordered([...found.items, ...more.filter((job) => !known.has(job.id))]);
    const focused = document.activeElement?.id;
    if (shown.length || typed || state || !list.querySelector(".first-run")) list.replaceChildren(shown.length ? rows(shown) : empty());
    status.textContent = shown.length ? told() : "";
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  function told() {
    const jobs = total === 1 ? "1 job" : `${count(total ?? shown.length)} jobs`;
    return cursor === null ? jobs : `${count(shown.length)} of ${jobs}${order ? ", of which those loaded are sorted" : ", the newest first"}`;
  }

  function ordered(jobs) {
    if (!order) return jobs;
    const { of } = ORDERS[order.replace(/^-/, "")];
    const sign = order.startsWith("-") ? -1 : 1;
    return jobs.map((job) => [of(job), job]).sort(([one], [other]) => sign * (one < other ? -1 : one > other ? 1 : 0)).map(([, job]) => job);
  }

  function empty() {
    if (typed) return h("p", { class: "soft" }, `No job${state ? ` that is ${state}` : ""} has a name that begins with “${typed}”.`);
    if (state) return h("p", { class: "soft" }, EMPTY[state]);
    const tried = h("div");
    offerTrial(tried);
    return h(
      "section",
      { class: "first-run", "aria-labelledby": "first-run" },
      h("h2", { id: "first-run" }, "No job yet"),
      h("p", {}, "A selection needs a dataset, a model that scores it and a budget. What will happen:"),
      h("ol", { class: "stages" }, WHAT_HAPPENS.map(([words, about]) => h("li", {}, h("b", {}, words), h("span", {}, about)))),
      h("p", { class: "actions" }, h("a", { class: "button main", href: "#/new" }, "Begin with a preview of your rows")),
      tried,
    );
  }

  /** A whole job in one click, out of what lies in the directories that the service may read. */
  async function offerTrial(place) {
    const found = await get("/files", { signal }).catch(() => ({ datasets: [], models: [] }));
    const [dataset, model] = [found.datasets[0], found.models[0]];
    if (!dataset || !model) {
      place.append(h("p", { class: "soft" }, "Nothing at hand? ", h("code", {}, "make demo"), " in the repository builds a dataset, brings a small model along and runs a whole job."));
      return;
    }
    const start = h("button", { type: "button", onclick: () => trial(dataset, model, start, place) }, "Try it with what is here");
    place.append(h("p", { class: "actions" }, start), h("p", { class: "soft" }, `A tenth of ${dataset.name}, as ${model.name} reads it, against random rows.`));
  }

  async function trial(dataset, model, start, place) {
    start.disabled = true;
    try {
      const body = { name: "demo", dataset: { uri: dataset.uri }, model: { uri: model.uri }, selection: { budget: { fraction: 0.1 }, baselines: ["random"] } };
      const job = await post("/jobs", body, { signal });
      location.hash = `#/jobs/${job.id}`;
    } catch (problem) {
      if (problem.name === "AbortError") return;
      start.disabled = false;
      place.append(failure(problem));
    }
  }

  function heading(words, by = words.toLowerCase()) {
    const { down } = ORDERS[by];
    const turns = [down ? `-${by}` : by, down ? by : `-${by}`, ""];
    const now = order.replace(/^-/, "") === by;
    const arrow = now ? (order.startsWith("-") ? " ↓" : " ↑") : "";
    const button = h("button", { type: "button", class: "quiet", id: `sort-${by.replace(" ", "-")}`, onclick: () => go({ sort: turns[turns.indexOf(order) + 1] ?? turns[0] }) }, words, arrow);
    const sorted = now ? (order.startsWith("-") ? "descending" : "ascending") : null;
    return h("th", { scope: "col", "aria-sort": sorted }, button);
  }

  function rows(jobs) {
    return table(
      "Jobs",
      ["Compare", "State", heading("Name"), "Dataset", heading("Method"), "Budget", "Penalty", heading("Picked"), heading("Log det"), heading("Proven"), heading("Took"), "Submitted"],
      jobs.map((job) => {
        const { result, selection } = job;
        const box = h("input", { type: "checkbox", id: `compare-${job.id}`, "aria-label": `Compare ${name(job)}`, checked: chosen.has(job.id), disabled: !result, onchange: () => choose(job, box.checked) });
        return [
          h("td", { class: "narrow" }, box),
          h("td", { class: `state ${job.state}` }, stateText(job.state), FINAL.has(job.state) ? null : h("small", {}, job.stage ? ` ${job.stage} ${progressText(job.progress)}` : ""), job.error ? h("small", {}, job.error.title) : null),
          h("th", { scope: "row" }, h("a", { id: `job-${job.id}`, href: `#/jobs/${job.id}` }, name(job))),
          h("td", { class: "file", "data-head": "Dataset" }, job.dataset.uri ? basename(job.dataset.uri) : job.dataset.uris ? `${job.dataset.uris.length} files` : "registered"),
          h("td", { "data-head": "Method" }, selection.method),
          h("td", { class: "number", "data-head": "Budget" }, budget(selection.budget)),
          h("td", { class: "number", "data-head": "Penalty" }, selection.method === "spice" ? conflict(selection.conflict_penalty) : ""),
          h("td", { class: "number", "data-head": "Picked" }, result ? `${count(result.selected)} of ${count(result.rows_usable)}` : ""),
          h("td", { class: "number", "data-head": "Log det" }, result ? nats(result.log_det) : ""),
          h("td", { class: "number", "data-head": "Proven" }, result ? percent(result.certificate.value) : ""),
          h("td", { class: "number", "data-head": "Took" }, took(job) === null ? "" : duration(took(job))),
          h("td", { class: "soft moment" }, briefly(job.created_at)),
        ];
      }),
      { class: "cards" },
    );
  }

  function choose(job, on) {
    if (on) chosen.set(job.id, job);
    else chosen.delete(job.id);
    const many = chosen.size > MOST_COMPARED;
    compare.hidden = chosen.size < 2;
    compare.textContent = many ? `Compare: choose ${MOST_COMPARED} at most` : `Compare ${chosen.size} jobs`;
    if (many) compare.removeAttribute("href");
    else compare.href = `#/compare/${[...chosen.keys()].join("/")}`;
  }
}

export const name = (job) => job.name ?? `job ${job.id.slice(0, 8)}`;

function budget(asked) {
  if (asked.count != null) return rowsText(asked.count);
  if (asked.fraction != null) return `${Number((100 * asked.fraction).toPrecision(3))}%`;
  return asked.tokens != null ? `${count(asked.tokens)} tokens` : "";
}

/** Seconds from start to end; null while there is no end, or never was a start. */
function took(job) {
  return job.started_at && job.finished_at ? (new Date(job.finished_at) - new Date(job.started_at)) / 1000 : null;
}
