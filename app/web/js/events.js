/* Follow a job: server-sent events over fetch (EventSource can't send a key), or polling where they are not to be had. */

import { get, getInTheEnd, send, sleep } from "./api.js";
import { FINAL } from "./format.js";

const POLL_MS = 2000;
const SILENCE_MS = 60_000; // there are heartbeats: a stream that is silent for longer is broken

/**
 * Call `onJob` with the job now and whenever it changes, until it has ended or `signal` says stop. A connection that
 * breaks is taken up again; meanwhile `onTrouble` is told why, and of null when it is over.
 */
export async function follow(id, onJob, onTrouble, signal) {
  let job = await get(`/jobs/${id}`, { signal });
  const look = async () => (job = await getInTheEnd(`/jobs/${id}`, signal, onTrouble));
  let last = 0;
  onJob(job);
  while (!FINAL.has(job.state)) {
    let heard = false;
    try {
      for await (const batch of events(`/jobs/${id}/events?after=${last}`, signal)) {
        heard = true;
        last = batch.at(-1).id ?? last;
        const progress = batch.findLast((event) => event.kind === "progress" && event.data.stage === job.stage);
        if (batch.every((event) => event.kind === "progress")) onJob({ ...job, progress: progress?.data ?? job.progress });
        else onJob(await look());
        if (FINAL.has(job.state)) return;
      }
    } catch (error) {
      if (signal.aborted) throw error; // else the look at the job tells what is wrong
    }
    if (!heard) await sleep(POLL_MS, signal);
    onJob(await look());
  }
}

/** The events of a stream, those that come together as one list; ends when the server closes it. */
async function* events(path, signal) {
  const response = await send(path, { accept: "text/event-stream", signal });
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await soon(reader.read());
      if (done) return;
      buffer += value.replaceAll("\r\n", "\n");
      const blocks = buffer.split("\n\n");
      buffer = blocks.pop();
      const batch = blocks.map(parse).filter(Boolean);
      if (batch.length) yield batch;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** What comes within a minute; nothing more, if it does not. */
async function soon(read) {
  let timer;
  const silence = new Promise((resolve) => (timer = setTimeout(resolve, SILENCE_MS, { done: true })));
  try {
    return await Promise.race([read, silence]);
  } finally {
    clearTimeout(timer);
  }
}

/** What an event says; null for a comment, or for what is no event of a job. */
function parse(block) {
  const text = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}
