/* One job: how far it is; once it has succeeded, what it found. */

import { address, apiKey, download, get, post, remove } from "./api.js";
import { announce, failure, h, table } from "./dom.js";
import { follow } from "./events.js";
import { figure, widths } from "./figures.js";
import { FINAL, STAGES, basename, conflict, count, duration, nats, percent, progressText, stateText, when } from "./format.js";
import { listAddress, name } from "./jobs.js";
import { leagueSection } from "./league.js";
import { PICKED, rowsSection, suspectsSection } from "./rows.js";
import { useSection } from "./use.js";
import { whySection } from "./why.js";

/** The parts of a job's request that say how it selects. */
const ASKED = ["dataset", "model", "gradients", "selection", "preset", "schedule", "extends", "limits", "timeout_s", "priority"];
const PLACE_MS = 5000;
const FIRST = 4;
/** Files of a job; the first ones are what most want. */
const DOWNLOADS = [
  ["subset?rows=true", "Rows", "the picked rows in the dataset's own format"],
  ["subset?format=csv", "CSV", "row numbers and gains, one pick a line"],
  ["subset?format=json", "JSON", "row numbers, gains, epsilons, conflicts"],
  ["subset?format=parquet", "Parquet", "the same, one pick a row"],
  ["subset?format=ndjson", "NDJSON", "the same, one pick a line"],
  ["curve", "Curve", "log-det of all methods"],
  ["conflicts", "Conflicts", "statistics of the picks"],
  ["rejected", "Rejected", "rows that could not be used, or were filtered"],
  ["scores", "Scores", "Parquet: loss, norm, cosine, IFD, loss of the end, suspicion and what the methods need of every row"],
];

export async function jobView({ view, signal, parts: [id], arrived }) {
  const body = h("div");
  const actions = h("p", { class: "actions" });
  const state = h("span", { class: "state" });
  const title = h("h1", { tabIndex: -1 });
  const said = h("div");
  const lost = h("p", { class: "lost" });
  let shown = "";
  let heard = "";
  let farthest = 0;
  let looking = false;
  const ahead = h("span", {});
  const clock = h("span", { class: "soft", role: "timer", "aria-live": "off" });
  const told = h("p", { class: "progress" });
  let ticks = () => {};
  const timer = setInterval(() => ticks(), 1000);
  signal.addEventListener("abort", () => clearInterval(timer));
  await follow(
    id,
    (job) => {
      if (!shown) {
        view.replaceChildren(
          h("p", { class: "crumb" }, h("a", { href: listAddress() }, "Jobs")),
          h("div", { class: "head" }, title, state),
          h("p", { class: "soft" }, `${basename(job.dataset.uri ?? "a registered dataset")} as ${basename(job.model.uri)} reads it, submitted ${when(job.created_at)}`),
          actions,
          lost,
          said,
          body,
        );
        title.textContent = name(job);
      }
      state.className = `state ${goingOn(job)}`;
      state.textContent = stateText(goingOn(job));
      if (FINAL.has(job.state) || !body.firstChild) body.replaceChildren();
      draw(job);
      if (!shown) arrived(name(job));
      shown = job.state;
    },
    trouble,
    signal,
  );

  /** Said once, however often it is tried again. */
  function trouble(problem) {
    const words = problem ? `${problem.title}. Trying again` : "";
    if (lost.textContent === words) return;
    lost.textContent = words;
    if (words) announce((heard = words));
  }

  function draw(job) {
    const key = `${job.state} ${job.cancel_requested}`;
    if (actions.dataset.key !== key) {
      actions.dataset.key = key;
      actions.replaceChildren(...buttons(job));
    }
    if (job.state === "succeeded") result(job).catch(unshown);
    else if (FINAL.has(job.state)) body.replaceChildren(job.error ? failure(job.error) : h("p", {}, "Nothing was published. Sketches that were computed are kept for other jobs."), settings(job));
    else running(job);
    const words = FINAL.has(job.state) ? `Job ${job.state}` : heardProgress(job);
    if (words !== heard) announce((heard = words));
  }

  /** What could not be shown of a result; a fault of the page is one of its own, and none to keep quiet about. */
  function unshown(problem) {
    if (problem.name === "AbortError") return;
    const known = "title" in problem;
    body.append(failure(known ? problem : { title: "The page met with a fault", detail: String(problem) }));
    if (!known) throw problem;
  }

  function buttons(job) {
    const again = h("a", { class: "button", href: "#/new", onclick: () => sessionStorage.setItem("spice-again", JSON.stringify(job)) }, "Submit again with changes");
    if (!FINAL.has(job.state)) {
      const stop = h("button", { type: "button", class: "danger", disabled: job.cancel_requested, onclick: () => act(() => post(`/jobs/${id}/cancel`), "Cancelling") }, job.cancel_requested ? "Cancelling" : "Cancel");
      return [stop];
    }
    const erase = h("button", { type: "button", class: "danger", onclick: () => confirmDelete(job) }, "Delete");
    if (job.state !== "succeeded") return [again, erase];
    return [fetched("report", "Report", "button"), again, erase];
  }

  async function act(request, words) {
    said.replaceChildren();
    try {
      await request();
      announce(words);
    } catch (problem) {
      said.replaceChildren(failure(problem));
    }
  }

  function confirmDelete(job) {
    const dialog = h(
      "dialog",
      { "aria-labelledby": "delete-title" },
      h(
        "form",
        { method: "dialog" },
        h("h2", { id: "delete-title" }, "Delete this job?"),
        h("p", {}, `${name(job)}, its picks and its rows go for good. Gradients stay for other jobs.`),
        h("p", { class: "actions" }, h("button", { value: "delete", class: "danger" }, "Delete"), h("button", { value: "", autofocus: true }, "Keep")),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (dialog.returnValue === "delete" && !signal.aborted) act(async () => (await remove(`/jobs/${id}`), (location.hash = "#/")), "Deleted");
    });
    document.body.append(dialog);
    dialog.showModal();
  }

  /** A job whose shards are done waits for a turn once more, and reads what it has read: for who looks, it goes on. */
  function running(job) {
    const at = job.started_at ? Math.max(farthest, STAGES.findIndex(([stage]) => stage === job.stage)) : -1;
    farthest = Math.max(at, farthest);
    const again = at >= 0 && (job.state === "queued" || STAGES[at][0] !== job.stage);
    const progress = again ? null : job.progress;
    const bar = h("progress", { "aria-label": "Progress of this stage" });
    if (progress?.total) Object.assign(bar, { max: progress.total, value: progress.done });
    const ends = progress?.eta_s ? Date.now() + 1000 * progress.eta_s : null;
    ticks = () => {
      clock.textContent = job.started_at ? `${duration(since(job.started_at))} since it began` : `${duration(since(job.created_at))} since it was submitted`;
      told.textContent = again ? "Going on with what was computed." : progressText(ends ? { ...progress, eta_s: Math.max(0, (ends - Date.now()) / 1000) } : progress);
    };
    ticks();
    const now = h(
      "div",
      {},
      h(
        "ol",
        { class: "stages" },
        STAGES.map(([, words], number) => h("li", { class: number < at ? "done" : number === at ? "now" : "", "aria-current": number === at ? "step" : null }, words, number < at ? h("span", { class: "unseen" }, ", done") : null)),
      ),
      at < 0 ? h("p", {}, "Waiting for a worker.", ahead) : [bar, told],
      h("p", {}, clock),
      job.workers?.length ? table("Workers", ["Worker", "Shard", "Samples", "A second"], job.workers.map((one) => [one.worker, String(one.shard), `${count(one.done)} of ${count(one.total)}`, one.rate ? one.rate.toFixed(1) : ""])) : "",
      settings(job),
    );
    body.replaceChildren(now);
    if (at < 0) tellPlace(job);
  }

  /** How many jobs of the project wait for longer; turns go by more than that, so it is no promise. */
  async function tellPlace(job) {
    if (looking) return;
    looking = true;
    const query = new URLSearchParams({ state: "queued", created_before: job.created_at, limit: "1", total: "true" });
    const found = await get(`/jobs?${query}`, { signal }).catch(() => null);
    if (found?.total) ahead.textContent = found.total === 1 ? " One job waits for longer." : ` ${count(found.total)} jobs wait for longer.`;
    setTimeout(() => (looking = false), PLACE_MS);
  }

  async function result(job) {
    const found = job.result;
    const words = h("section", { "aria-labelledby": "result" }, h("h2", { id: "result", class: "unseen" }, "Result"));
    const drawn = h("section", { class: "figures", "aria-labelledby": "figures" }, h("h2", { id: "figures", class: "unseen" }, "Figures"));
    body.replaceChildren(facts(job), useSection(job, downloads()), words, drawn);
    const size = widths(drawn, 2);
    const figures = await get(`/jobs/${id}/figures?${size}`, { signal });
    words.append(...figures.summary.map((paragraph) => h("p", { class: "words" }, paragraph)));
    drawn.append(...arranged(figures.figures, (...narrowed) => rows.show(...narrowed)));
    const [league, statistics] = await Promise.all([get(`/jobs/${id}/league`, { signal }), get(`/jobs/${id}/statistics`, { signal })]);
    const rows = await rowsSection(PICKED(id, statistics.sources), signal);
    body.append(
      leagueSection(league),
      rows.section,
      whySection(id, found.rows_total, signal),
      suspectsSection(id, found.suspects, signal),
      settings(job),
      provenance(found),
    );
    redrawWhenResized(drawn, size, (...narrowed) => rows.show(...narrowed));
  }

  function redrawWhenResized(place, size, onRows) {
    let before = size;
    let timer;
    const observer = new ResizeObserver(() => {
      clearTimeout(timer);
      timer = setTimeout(async () => {
        const now = widths(place, 2);
        if (now === before) return;
        before = now;
        const again = await get(`/jobs/${id}/figures?${now}`, { signal }).catch(() => null);
        const open = new Set([...place.querySelectorAll("figure details[open]")].map((one) => one.closest("figure").className));
        if (again) place.replaceChildren(place.firstChild, ...arranged(again.figures, onRows));
        for (const one of place.querySelectorAll("figure")) if (open.has(one.className)) one.querySelector("details").open = true;
      }, 150);
    });
    observer.observe(place);
    signal.addEventListener("abort", () => observer.disconnect());
  }

  function facts(job) {
    const { result } = job;
    const pairs = [
      ["Picked", `${count(result.selected)} of ${count(result.rows_usable)}`],
      ["Information", `${nats(result.log_det)} nats`],
      ["Proven share of the best", percent(result.certificate.value)],
      ["Mean conflict", conflict(result.mean_conflict)],
      ...(result.tokens_selected === null || result.tokens_selected === undefined ? [] : [["Tokens of the picks", count(result.tokens_selected)]]),
      ...(result.extension ? [[`Gained by ${count(result.extension.rows_added)} added`, `${nats(result.extension.log_det_gained)} nats`]] : []),
      ...(result.extension?.rows_gone ? [["Picks gone from the data", count(result.extension.rows_gone)]] : []),
      ...(result.constraints && result.constraints.log_det_lost !== null ? [["Cost of the constraints", `${nats(result.constraints.log_det_lost)} nats`]] : []),
      ...(result.target ? [["Cosine with the target", conflict(result.target.cosine)]] : []),
      ...(result.stability?.mean ? [["Picked again", percent(result.stability.mean)]] : []),
      ["Time", duration(Object.values(result.seconds).reduce((sum, one) => sum + one, 0))],
    ];
    return h("dl", { class: "facts" }, pairs.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
  }

  /** A link to a file of the API; with a key, a button that fetches it. */
  function fetched(path, words, className = "") {
    if (!apiKey()) return h("a", { class: className, href: address(`/jobs/${id}/${path}`), download: path === "report" ? null : "" , target: path === "report" ? "_blank" : null, rel: "noopener" }, words);
    return h("button", { type: "button", class: className || "link", onclick: () => act(() => download(`/jobs/${id}/${path}`), `${words} is saved`) }, words);
  }

  function downloads() {
    const list = (files) => h("ul", { class: "downloads" }, files.map(([path, words, about]) => h("li", {}, fetched(path, words), h("span", { class: "soft" }, ` ${about}`))));
    return [list(DOWNLOADS.slice(0, FIRST)), h("details", {}, h("summary", {}, "More files"), list(DOWNLOADS.slice(FIRST)))];
  }

  function settings(job) {
    const notes = Object.entries(job.metadata).map(([key, value]) => [`metadata: ${key}`, value]);
    return h("section", { "aria-labelledby": "settings" }, h("h2", { id: "settings" }, "Settings"), pairs("Settings", [...asked(job), ...notes]));
  }

  function provenance(found) {
    const rows = [["dataset", found.fingerprint], ["model", found.model_revision], ["gradient sketches", `${found.sketches}${found.sketches_reused ? ", computed by an earlier job" : ""}`], ["alpha", String(found.alpha)], ["tokens", count(found.tokens)]];
    return h("section", { "aria-labelledby": "provenance" }, h("h2", { id: "provenance" }, "Made from"), pairs("Made from", [...rows, ...Object.entries(found.versions)]));
  }
}

/** Figures as they are read, those without anything to show at the end. */
const arranged = (figures, onRows) => [...figures.filter((one) => !one.folded), ...figures.filter((one) => one.folded)].map((one) => figure(one, onRows));

const since = (moment) => Math.max(0, (Date.now() - new Date(moment)) / 1000);

/** The state as it is for who looks: a job that waits between two turns of workers is running. */
const goingOn = (job) => (job.state === "queued" && job.started_at ? "running" : job.state);

function heardProgress(job) {
  const { progress, stage, state } = job;
  if (state === "queued") return job.started_at ? "Going on" : "Waiting for a worker";
  const part = progress?.total ? Math.floor((10 * progress.done) / progress.total) * 10 : null;
  return part === null ? `${stage ?? "running"}` : `${stage}, ${part} percent`;
}

export function pairs(caption, rows) {
  return h("div", { class: "wide" }, h("table", { class: "pairs" }, h("caption", { class: "unseen" }, caption), h("tbody", {}, rows.map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, key), h("td", {}, value))))));
}

/** What a job was asked for, as dotted names with their values. */
export const asked = (job) => ASKED.flatMap((part) => flat(job[part], part));

/** Settings within settings as dotted names; what is not set is left out. */
function flat(value, path) {
  if (value === null || value === undefined || (Array.isArray(value) && value.length === 0)) return [];
  if (Array.isArray(value)) return [[path, value.join(", ")]];
  if (typeof value !== "object") return [[path, String(value)]];
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, `${path}.${key}`));
}
