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
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "The service does not answer", detail: "Is it running? The page tries again when you do.", type: "unreachable" });
  }
  if (response.ok) return response;
  const document = await response.json().catch(() => ({ title: `HTTP ${response.status}` }));
  throw new Problem({ ...document, status: response.status });
}

export const get = async (path, options) => (await send(path, options)).json();
export const post = async (path, body, options) => (await send(path, { method: "POST", body, ...options })).json();
export const remove = (path) => send(path, { method: "DELETE" });

/** Wait until a resource that a worker works on has ended. */
export async function settled(path, signal, onLook = () => {}) {
  for (let pause = 250; ; pause = Math.min(pause * 1.5, 2000)) {
    const found = await get(path, { signal });
    onLook(found);
    if (["succeeded", "failed", "cancelled"].includes(found.state)) return found;
    await sleep(pause, signal);
  }
}

export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("", "AbortError"));
    });
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
