/* What a job may select from: registered datasets, uploaded files, and files that the service sees. */

import { get, upload } from "./api.js";
import { announce, h } from "./dom.js";
import { basename, percent, rowsText, size } from "./format.js";

const MOST_REGISTERED = 100;
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const SUFFIXES = ".jsonl,.ndjson,.json,.csv,.tsv,.parquet,.gz,.zst";

/** Whether a dataset is named by the id of a registered one. */
export const isId = (text) => ID.test(text ?? "");

/** Have the controls of dataset and model offer what there is; where the service tells nothing, URIs are written. */
export async function offerSources(dataset, model, signal) {
  const quietly = (path) => get(path, { signal }).catch(() => null);
  const [files, registered] = await Promise.all([quietly("/files"), quietly(`/datasets?state=succeeded&limit=${MOST_REGISTERED}`)]);
  const place = ({ uri, name, bytes }) => ({ value: uri, words: bytes === null ? name : `${name}, ${size(bytes)}` });
  const named = (registered?.items ?? []).map(({ id, name, uri, rows }) => ({ value: id, words: `${name ?? basename(uri)}, ${rowsText(rows)}` }));
  const complete = !registered?.next_cursor && (files?.complete ?? true);
  dataset.offer([{ title: "Registered datasets", places: named }, { title: "Uploaded files", places: (files?.uploads ?? []).map(place) }, { title: "Files", places: (files?.datasets ?? []).map(place) }], complete);
  model.offer([{ title: "Models", places: (files?.models ?? []).map(place) }], files?.complete ?? true);
}

/** A button that uploads a file and names it in the control; `after` is called once it is there. */
export function uploadButton(control, { signal, after }) {
  const told = h("span", { class: "soft" });
  const choice = h("input", { type: "file", id: "upload", class: "unseen", tabIndex: -1, accept: SUFFIXES, "aria-label": "File to upload", onchange: () => choice.files[0] && send(choice.files[0]) });
  const button = h("button", { type: "button", onclick: () => choice.click() }, "Upload a file");
  return h("p", { class: "upload" }, button, choice, " ", told);

  async function send(file) {
    control.say(file.size ? null : `The file '${file.name}' is empty.`);
    if (!file.size) return (choice.value = "");
    button.disabled = true;
    try {
      const kept = await upload(`/files?name=${encodeURIComponent(file.name)}`, file, { signal, onSent: (share) => (told.textContent = `${file.name}: ${percent(share, 0)} of ${size(file.size)} sent`) });
      control.write(kept.uri);
      told.textContent = `${kept.name}, ${size(kept.bytes)}, is uploaded`;
      announce(told.textContent);
      await after();
    } catch (problem) {
      told.textContent = "";
      if (problem.name !== "AbortError") control.say(problem.errors?.length ? problem.errors.map(({ message }) => `The file ${message}`).join("; ") : `${problem.title}: ${problem.detail ?? ""}`);
    } finally {
      button.disabled = false;
      choice.value = ""; // the same file may be chosen again, once it is put right
    }
  }
}
