/* Follow a job: server-sent events over fetch (EventSource can't send a key), or polling where they are not to be had. */

import { get, send, sleep } from "./api.js";
import { FINAL } from "./format.js";

const POLL_MS = 2000;

/** Call `onJob` with the job now and whenever it changes, until it has ended or `signal` says stop. */
export async function follow(id, onJob, signal) {
  let job = await get(`/jobs/${id}`, { signal });
  onJob(job);
  while (!FINAL.has(job.state)) {
    let waited = false;
    try {
      for await (const event of events(`/jobs/${id}/events`, signal)) {
        waited = true;
        if (event.kind === "progress" && event.data && "done" in event.data) onJob({ ...job, progress: event.data });
        else onJob((job = await get(`/jobs/${id}`, { signal })));
        if (FINAL.has(job.state)) return;
      }
    } catch (error) {
      if (error.name === "AbortError") throw error;
    }
    if (!waited) await sleep(POLL_MS, signal);
    onJob((job = await get(`/jobs/${id}`, { signal })));
  }
}

/** The events of a stream as {kind, data}; ends when the server closes it. */
async function* events(path, signal) {
  const response = await send(path, { accept: "text/event-stream", signal });
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += value.replaceAll("\r\n", "\n");
      const blocks = buffer.split("\n\n");
      buffer = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  let kind = "message";
  let text = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) kind = line.slice(6).trim();
    if (line.startsWith("data:")) text += line.slice(5);
  }
  if (!text) return null;
  try {
    const document = JSON.parse(text);
    return { kind: document.kind ?? kind, data: document.data ?? document };
  } catch {
    return null;
  }
}
