/* Proofs: all of them, and what one of them says. */

import { download, getInTheEnd, post, remove, sleep } from "./api.js";
import { announce, failure, h, table } from "./dom.js";
import { FINAL, count, progressText, stateText, when } from "./format.js";

const REFRESH_MS = 3000;

export async function proofsView({ view, signal, arrived }) {
  const list = h("div");
  view.replaceChildren(h("div", { class: "head" }, h("h1", { tabIndex: -1 }, "Proofs")), list);
  for (let first = true; ; first = false) {
    const found = await getInTheEnd("/proofs?limit=50", signal);
    list.replaceChildren(found.items.length ? rows(found.items) : h("p", { class: "soft" }, "No proof yet. A job that has succeeded can be proved: does training on its picks give a better model?"));
    if (first) arrived("Proofs");
    await sleep(REFRESH_MS, signal);
  }
}

function rows(proofs) {
  return table(
    "Proofs",
    ["State", "Proof", "Selection against the other arm", "Submitted"],
    proofs.map((proof) => [
      h("td", { class: `state ${proof.state}` }, stateText(proof.state), FINAL.has(proof.state) ? null : h("small", {}, ` ${proof.stage ?? ""} ${progressText(proof.progress)}`)),
      h("th", { scope: "row" }, h("a", { href: `#/proofs/${proof.id}` }, name(proof))),
      h("td", {}, verdicts(proof)),
      h("td", { class: "soft" }, when(proof.created_at)),
    ]),
  );
}

const name = (proof) => proof.name ?? `proof ${proof.id.slice(0, 8)}`;
const words = (verdict) => verdict.replaceAll("_", " ");
const DIGITS = 4;
/** A difference with its sign; one that rounds to zero has none. */
function signed(value) {
  if (value === null) return "";
  const text = Math.abs(value).toFixed(DIGITS);
  return Number(text) === 0 ? text : `${value > 0 ? "+" : "\u2212"}${text}`;
}
const verdicts = (proof) =>
  proof.comparisons
    .filter((one) => one.arm === "selected")
    .map((one) => `${one.metric}: ${words(one.verdict)}`)
    .join(", ");

export async function proofView({ view, signal, parts: [id], arrived }) {
  const state = h("span", { class: "state" });
  const actions = h("p", { class: "actions" });
  const said = h("div");
  const body = h("div");
  let heard = "";
  for (let first = true; ; first = false) {
    const proof = await getInTheEnd(`/proofs/${id}`, signal);
    if (first) {
      view.replaceChildren(
        h("p", { class: "crumb" }, h("a", { href: "#/proofs" }, "Proofs")),
        h("div", { class: "head" }, h("h1", { tabIndex: -1 }, name(proof)), state),
        proof.job ? h("p", { class: "soft" }, "Of ", h("a", { href: `#/jobs/${proof.job}` }, "its selection job")) : "",
        actions,
        said,
        body,
      );
      arrived(name(proof));
    }
    state.className = `state ${proof.state}`;
    state.textContent = stateText(proof.state);
    actions.replaceChildren(...buttons(proof, said));
    body.replaceChildren(...(FINAL.has(proof.state) ? ended(proof) : [h("p", {}, `${proof.stage ?? "waiting"} ${progressText(proof.progress)}`)]));
    const now = FINAL.has(proof.state) ? `Proof ${proof.state}` : `${proof.stage ?? "waiting"}`;
    if (now !== heard) announce((heard = now));
    if (FINAL.has(proof.state)) return;
    await sleep(REFRESH_MS, signal);
  }
}

function buttons(proof, said) {
  const act = async (request, words) => {
    said.replaceChildren();
    try {
      await request();
      announce(words);
    } catch (problem) {
      said.replaceChildren(failure(problem));
    }
  };
  const danger = (label, onclick) => h("button", { type: "button", class: "danger", onclick }, label);
  if (!FINAL.has(proof.state)) return [danger("Cancel", () => act(() => post(`/proofs/${proof.id}/cancel`), "Cancelling"))];
  const erase = danger("Delete", () => confirmDelete(proof, () => act(async () => (await remove(`/proofs/${proof.id}`), (location.hash = "#/proofs")), "Deleted")));
  if (proof.state !== "succeeded") return [erase];
  const file = (path, label) => h("button", { type: "button", onclick: () => download(`/proofs/${proof.id}/${path}`) }, label);
  return [file("report", "Report"), file("runs", "Runs"), file("runs?items=true&format=parquet", "Scores by row"), erase];
}

function confirmDelete(proof, onDelete) {
  const dialog = h(
    "dialog",
    { "aria-labelledby": "delete-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "delete-title" }, "Delete this proof?"),
      h("p", {}, `${name(proof)}, its scores and its adapters go for good. Runs that another proof has stay with that one.`),
      h("p", { class: "actions" }, h("button", { value: "delete", class: "danger" }, "Delete"), h("button", { value: "", autofocus: true }, "Keep")),
    ),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (dialog.returnValue === "delete") onDelete();
  });
  document.body.append(dialog);
  dialog.showModal();
}

function ended(proof) {
  if (proof.state !== "succeeded") return [proof.error ? failure(proof.error) : h("p", {}, "Nothing was compared. What runs had ended are kept for other proofs.")];
  const metrics = proof.settings.metrics.map((metric) => metric.name);
  const seeds = proof.comparisons.some((one) => one.runs_needed !== null);
  return [
    h(
      "section",
      {},
      h("h2", {}, "What it says"),
      proof.summary.map((words) => h("p", { class: "words" }, words)),
      proof.comparisons.length ? table(
        "Comparisons",
        ["Arm", "Against", "Metric", "Difference", "95% interval", "Verdict", ...(seeds ? ["Seeds needed"] : [])],
        proof.comparisons.map((one) => [h("th", { scope: "row" }, one.arm), one.against, number(inUnits(one.metric)), number(signed(one.difference)), number(one.interval ? `${signed(one.interval[0])} to ${signed(one.interval[1])}` : ""), number(words(one.verdict)), ...(seeds ? [String(one.runs_needed ?? "")] : [])]),
      ) : h("p", {}, `Nothing was compared: there is no arm beside ${proof.settings.against}.`),
    ),
    h(
      "section",
      {},
      h("h2", {}, "Arms"),
      table(
        "Arms",
        ["Arm", "Rows", "Tokens", "Runs", ...metrics.map((metric) => `Mean ${inUnits(metric)}`)],
        proof.arms.map((arm) => [h("th", { scope: "row" }, arm.name), number(count(Math.round(arm.rows))), number(count(Math.round(arm.tokens))), number(String(arm.runs.length)), ...metrics.map((metric) => number(arm.mean[metric]?.toFixed(4) ?? ""))]),
      ),
    ),
  ];
}

const inUnits = (metric) => (metric === "loss" ? "loss, nats a token" : metric.replaceAll("_", " "));
const number = (text) => h("td", { class: "number" }, text);
