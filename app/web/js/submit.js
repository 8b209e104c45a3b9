/* Register a dataset, see its rows as the model will, submit a selection. */

import { get, post, settled } from "./api.js";
import { control, remember } from "./controls.js";
import { announce, failure, h } from "./dom.js";
import { estimateShown } from "./estimate.js";
import { SECTIONS } from "./fields.js";
import { rowsText } from "./format.js";
import { furtherFields } from "./knobs.js";
import { previewRows } from "./preview.js";
import { isId, offerSources, uploadButton } from "./sources.js";

const ROWS_SHOWN = 10;
const SOURCE_COLUMNS = ["source", "dataset", "domain"];

export async function submitView({ view, signal, arrived }) {
  const written = new Set(SECTIONS.flatMap(({ fields }) => fields.map(({ path }) => path)));
  const further = furtherFields(await get("/openapi.json", { signal }), written);
  const sections = further.length ? [...SECTIONS, { title: "Further", fields: further }] : SECTIONS;
  const controls = new Map(sections.flatMap(({ fields }) => fields).map((field) => [field.path, control(field)]));
  const general = h("div");
  const shown = h("div", { id: "preview" });
  const look = h("button", { type: "button", onclick: () => preview() }, "Preview rows");
  const reckon = h("button", { type: "button", onclick: () => estimate() }, "Estimate");
  const estimated = h("div", { id: "estimate" });
  const submit = h("button", { type: "submit", class: "main" }, "Submit");
  const mapping = h("div", { id: "mapping" });
  let registered = null;
  const form = h(
    "form",
    { class: "knobs", noValidate: true, onsubmit: (event) => (event.preventDefault(), send()) },
    sections.map(({ title, fields }) => h("section", { "aria-labelledby": `section-${title}` }, h("h2", { id: `section-${title}` }, title), h("div", {}, part(fields, false), folded(title, fields), title === "Model" ? [mapping, h("p", { class: "actions" }, look), shown] : null))),
    estimated,
    general,
    h("p", { class: "actions" }, submit, " ", reckon),
  );
  const untouched = new Map([...controls].map(([path, one]) => [path, JSON.stringify(one.read())]));
  view.replaceChildren(h("p", { class: "crumb" }, h("a", { href: "#/" }, "Jobs")), h("h1", { tabIndex: -1 }, "New selection"), form);
  controls.get("selection.method").element.addEventListener("change", noBaselineOfItself);
  fillFromBefore();
  const offer = () => offerSources(controls.get("dataset.uri"), controls.get("model.uri"), signal);
  controls.get("dataset.uri").element.querySelector(".help").before(uploadButton(controls.get("dataset.uri"), { signal, after: offer }));
  offer();
  noBaselineOfItself();
  arrived("New selection");

  function part(fields, ofFolded) {
    return fields.filter((field) => Boolean(field.folded) === ofFolded).map((field) => controls.get(field.path).element);
  }

  function folded(title, fields) {
    const inside = part(fields, true);
    return inside.length ? h("details", { class: "more" }, h("summary", {}, title === "Further" ? "Further settings" : `${inside.length === fields.length ? "All settings" : "More settings"} of ${title.toLowerCase()}`), inside) : null;
  }

  function noBaselineOfItself() {
    const method = controls.get("selection.method").read();
    for (const box of controls.get("selection.baselines").element.querySelectorAll("input")) box.disabled = box.value === method;
  }

  /** The fields below one of the parts of a request, as the API wants them. */
  function read(paths) {
    const request = {};
    for (const path of paths) {
      const value = controls.get(path).read();
      if (value === undefined) continue;
      const steps = path.split(".");
      const last = path === "dataset.uri" && isId(value) ? (steps.pop(), "id") : steps.pop();
      const place = steps.reduce((at, step) => (at[step] ??= {}), request);
      place[last] = value;
    }
    return request;
  }

  /** With a preset or a schedule, what nobody has changed is left out: it is for them to say. */
  function asked() {
    const implied = controls.get("preset").read() || controls.get("schedule").read();
    const changed = ([path, one]) => JSON.stringify(one.read()) !== untouched.get(path);
    const paths = implied ? [...controls].filter(changed).map(([path]) => path) : controls.keys();
    return { dataset: {}, model: {}, selection: {}, ...read(paths) };
  }

  async function send() {
    const request = asked();
    await busy(submit, async () => {
      const job = await post("/jobs", request, { signal });
      for (const field of controls.values()) if (field.field.recent) remember(field.field.recent, field.read());
      announce("Submitted");
      location.hash = `#/jobs/${job.id}`;
    });
  }

  async function estimate() {
    await busy(reckon, async () => {
      estimated.replaceChildren(h("p", { class: "soft" }, "A worker looks at the rows."));
      try {
        const begun = await post("/estimates", asked(), { signal });
        const found = begun.seconds ? begun : await settled(`/estimates/${begun.id}`, signal);
        estimated.replaceChildren(...estimateShown(found).flat().filter(Boolean));
        announce("Estimated");
      } catch (problem) {
        estimated.replaceChildren();
        throw problem;
      }
    });
  }

  async function preview() {
    await busy(look, async () => {
      shown.replaceChildren(h("p", { class: "soft" }, "A worker reads the dataset."));
      const { dataset: wanted = {}, model = {} } = read(["dataset.uri", "dataset.format", "dataset.columns", "model.uri", "model.max_length", "model.dtype"]);
      const dataset = await register(wanted);
      const asked = await post(`/datasets/${dataset.id}/previews`, { model, columns: wanted.columns, rows: ROWS_SHOWN }, { signal });
      const found = await settled(`/datasets/${dataset.id}/previews/${asked.id}`, signal);
      if (found.state !== "succeeded") throw found.error ?? { title: "The preview was not made" };
      shown.replaceChildren(h("h3", {}, `The first of ${rowsText(dataset.rows)}`), ...previewRows(found, Number(controls.get("dataset.max_rejected_fraction").read() ?? 0.05), sourceColumn(dataset.columns)));
      announce(`Preview of ${found.rows.length} rows`);
    });
  }

  /** Which column tells where a row is from: the one that is named, or the first of the usual ones. */
  const sourceColumn = (columns) => controls.get("dataset.source_column").read() ?? SOURCE_COLUMNS.find((name) => columns.includes(name)) ?? null;

  /** A dataset is registered once for a URI, and again when a look at it fails: it may have been put right. */
  async function register({ id, uri, format }) {
    const key = JSON.stringify([id, uri, format]);
    if (registered?.key !== key) registered = { key, dataset: id ? { id } : await post("/datasets", { uri, format }, { signal }) };
    const dataset = await settled(`/datasets/${registered.dataset.id}`, signal);
    if (dataset.state !== "succeeded") {
      registered = null;
      throw dataset.error ?? { title: "The dataset was not read" };
    }
    controls.get("dataset.columns").choose(dataset.columns);
    mapping.replaceChildren(controls.get("dataset.columns").element); // beside the rows that they are about
    return dataset;
  }

  async function busy(button, work) {
    general.replaceChildren();
    for (const one of controls.values()) one.say(null);
    button.disabled = true;
    try {
      columnsChosen();
      await work();
    } catch (problem) {
      if (problem.name !== "AbortError") explain(problem, button === look);
    } finally {
      button.disabled = false;
    }
  }

  /** A column that is not chosen yet would be sent as one of the role's own name, which the dataset may not have. */
  function columnsChosen() {
    const message = controls.get("dataset.columns").missing();
    if (message) throw { title: "A column is not chosen yet", errors: [{ field: "dataset.columns", message }] };
  }

  /** The server's words at the fields that they are about; what is about none, above the button. */
  function explain(problem, ofPreview) {
    if (ofPreview) shown.replaceChildren();
    const inputs = [];
    const rest = [];
    for (const { field, message } of problem.errors ?? []) {
      const found = known(field, ofPreview);
      if (!found) {
        rest.push(`${field}: ${message}`);
        continue;
      }
      const lacking = found.field.required && found.read() === undefined;
      inputs.push(found.say(lacking ? "Nothing is given yet: write a URI, or choose one that is here." : message));
      found.element.closest("details")?.setAttribute("open", "");
    }
    const first = inputs.sort((one, other) => (one.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1))[0];
    if (!first || rest.length) (ofPreview ? shown : general).replaceChildren(failure({ title: problem.title ?? "Something went wrong", detail: rest.join("; ") || problem.detail || problem.message }));
    first?.focus();
    announce(problem.title ?? "");
  }

  function known(path, ofPreview) {
    const places = ofPreview && !path.startsWith("model") && !path.startsWith("dataset") ? [`dataset.${path}`] : [path];
    for (const place of places) {
      for (let at = place; at; at = at.slice(0, Math.max(at.lastIndexOf("."), 0))) if (controls.has(at)) return controls.get(at);
    }
    return { dataset: controls.get("dataset.uri"), model: controls.get("model.uri") }[path];
  }

  function fillFromBefore() {
    const before = JSON.parse(sessionStorage.getItem("spice-again") ?? "null");
    sessionStorage.removeItem("spice-again");
    if (!before) return;
    const given = (path) => path.split(".").reduce((at, step) => at?.[step], before);
    for (const [path, one] of controls) {
      const value = given(path) ?? (path === "dataset.uri" ? given("dataset.id") : null);
      if (value !== null && value !== undefined) one.write(value);
    }
  }
}

