/* Requests to the API that served this page. */

const KEY = "spice-api-key";
export const apiKey = () => sessionStorage.getItem(KEY) ?? "";
export const setApiKey = (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));

/** What the API answered instead of a result: the fields of its problem document. */
export class Problem extends Error {
  constructor(document) {
    super(document.detail ?? document.title);
    Object.assign(this, { title: "The request failed", status: 0, type: "", errors: [] }, document);
  }

  /** Whether it passes by itself: no answer, too many requests, a service that starts or is behind a gateway. */
  get transient() {
    return this.type === "unreachable" || [429, 502, 503, 504].includes(this.status);
  }
}

/** Paths are relative to the page: it may be served below a prefix. */
const address = (path) => new URL(path.replace(/^\//, ""), document.baseURI.replace(/[#?].*$/, "")).href;

export async function send(path, { method = "GET", body, accept = "application/json", signal } = {}) {
  const headers = { Accept: accept };
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(address(path), { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store" });
  } catch (error) {
    throw unreachable(error);
  }
  if (response.ok) return response;
  const document = await response.json().catch(() => ({ title: `HTTP ${response.status}` }));
  throw new Problem({ ...document, status: response.status });
}

/** No answer, or half of one, as a problem; that the page has left is none. */
function unreachable(error) {
  if (error.name === "AbortError") return error;
  return new Problem({ title: "The service does not answer", detail: "Is the service running? Submitted jobs are not lost: they go on.", type: "unreachable" });
}

const read = (response) => response.json().catch((error) => Promise.reject(unreachable(error)));
export const get = async (path, options) => read(await send(path, options));
export const post = async (path, body, options) => read(await send(path, { method: "POST", body, ...options }));
/** Send a file as it is; `onSent` is told of the share that has left this machine. */
export function upload(path, file, { signal, onSent }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much is sent
    request.open("POST", address(path));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (apiKey()) request.setRequestHeader("Authorization", `Bearer ${apiKey()}`);
    request.upload.onprogress = ({ loaded, total }) => onSent(total ? loaded / total : 0);
    request.onload = () => {
      const answer = parsed(request.responseText);
      if (request.status === 201) resolve(answer);
      else reject(new Problem({ title: `HTTP ${request.status}`, ...answer, status: request.status }));
    };
    request.onerror = () => reject(unreachable(new TypeError("no answer")));
    request.onabort = () => reject(new DOMException("", "AbortError"));
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

export const remove = (path) => send(path, { method: "DELETE" });

/** As `get`, and sits out what passes by itself; `onTrouble` is told of each failure, and of null when it is over. */
export async function getInTheEnd(path, signal, onTrouble = () => {}) {
  for (let pause = 1000; ; pause = Math.min(pause * 2, 15_000)) {
    try {
      const found = await get(path, { signal });
      onTrouble(null);
      return found;
    } catch (problem) {
      if (!problem.transient) throw problem;
      onTrouble(problem);
      await sleep(pause * (0.5 + Math.random() / 2), signal);
    }
  }
}

/** Wait until a resource that a worker works on has ended. */
export async function settled(path, signal) {
  for (let pause = 250; ; pause = Math.min(pause * 1.5, 2000)) {
    const found = await getInTheEnd(path, signal);
    if (["succeeded", "failed", "cancelled"].includes(found.state)) return found;
    await sleep(pause, signal);
  }
}

export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Save a download under the name that the API gives it. With a key a plain link can't be used: it sends none. */
export async function download(path) {
  const response = await send(path, { accept: "*/*" });
  const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? "download";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export { address };
