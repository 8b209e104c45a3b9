/* Which view the address names. Addresses are fragments, so the server has one page to serve. */

import { apiKey } from "./api.js";
import { h } from "./dom.js";
import { askForKey } from "./key.js";
import { compareView } from "./compare.js";
import { jobView } from "./job.js";
import { jobsView } from "./jobs.js";
import { proofView, proofsView } from "./proofs.js";
import { submitView } from "./submit.js";

const ROUTES = [
  [/^#\/new$/, submitView],
  [/^#\/proofs$/, proofsView],
  [/^#\/proofs\/([\w-]+)$/, proofView],
  [/^#\/jobs\/([\w-]+)$/, jobView],
  [/^#\/compare\/([\w-]+(?:\/[\w-]+){1,7})$/, compareView],
  [/^(#\/?(\?.*)?)?$/, jobsView],
];

const view = document.getElementById("view");
let leaving = new AbortController();
let before = null;
const RETRY_MS = 3000;

async function show() {
  const from = before;
  before = location.hash || "#/";
  for (const dialog of document.querySelectorAll("dialog")) dialog.remove(); // a question about what is left behind
  view.replaceChildren(h("p", { class: "soft" }, "Loading"));
  await draw(from);
}

/** Draw the view that the address names; one that the service does not answer for is drawn again until it does. */
async function draw(from) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [pattern, render] = ROUTES.find(([known]) => known.test(location.hash)) ?? [/^/, notFound];
  const place = before.split("?")[0];
  for (const link of document.querySelectorAll("nav a")) {
    link.toggleAttribute("aria-current", link.getAttribute("href") === place);
    if (link.hasAttribute("aria-current")) link.setAttribute("aria-current", "page");
  }
  try {
    await render({ view, signal, parts: pattern.exec(location.hash).slice(1), arrived, from });
  } catch (problem) {
    if (problem.name === "AbortError") return;
    const { title, detail } = "title" in problem ? problem : { title: "The page met with a fault", detail: String(problem) };
    if (problem.transient) setTimeout(() => signal.aborted || draw(from), RETRY_MS);
    if (problem.transient && view.querySelector("h1")?.textContent === title) return; // it is said already
    const words = problem.transient ? `${detail ?? ""} Trying again.`.trim() : detail;
    view.replaceChildren(h("h1", { tabIndex: -1 }, title), h("p", { class: "failure", role: "alert" }, words ?? ""), h("p", {}, h("a", { href: "#/" }, "All jobs")));
    if (problem.status === 401 || problem.status === 403) askForKey(again, detail);
    arrived(title);
    if (!("title" in problem)) throw problem;
  }
}

/** A view is there: name the document and put the focus where reading begins. */
function arrived(title) {
  document.title = `${title} · SPICE`;
  view.querySelector("h1")?.focus({ preventScroll: true });
}

function notFound({ view, arrived }) {
  view.replaceChildren(h("h1", { tabIndex: -1 }, "There is no such page"), h("p", {}, h("a", { href: "#/" }, "All jobs")));
  arrived("Not found");
}

const button = document.getElementById("key");
const mark = () => (button.textContent = apiKey() ? "API key: set" : "API key");
const again = () => (mark(), show());
button.addEventListener("click", () => askForKey(again));
mark();
document.querySelector(".skip").addEventListener("click", (event) => (event.preventDefault(), view.focus()));
addEventListener("hashchange", show);
show();
