/* Numbers, times and states as text. */

const whole = new Intl.NumberFormat("en");
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const thisYear = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });

export const count = (value) => whole.format(value);
export const nats = (value) => Number(value).toPrecision(4);
export const conflict = (value) => String(Number(value.toPrecision(2)));
export const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)}%`;
export const when = (value) => (value ? moment.format(new Date(value)) : "");
export const rowsText = (number) => (number === 1 ? "1 row" : `${count(number)} rows`);

/** A moment for a table, without the year if that is this one. */
export function briefly(value) {
  const at = new Date(value);
  return at.getFullYear() === new Date().getFullYear() ? thisYear.format(at) : when(value);
}

/** Seconds as one or two units. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const GLYPHS = { queued: "○", running: "◐", succeeded: "●", failed: "✕", cancelled: "–" };
export const stateText = (state) => `${GLYPHS[state] ?? ""} ${state}`;

export const STAGES = [
  ["reading", "Read the rows"],
  ["gradients", "Compute a gradient for each"],
  ["selecting", "Select"],
  ["publishing", "Publish"],
];

/** Where a stage is, in words. */
export function progressText(progress) {
  if (!progress) return "";
  const inBytes = progress.unit === "bytes";
  const amount = inBytes ? size : count;
  const over = progress.done === progress.total;
  const total = progress.total === null ? "" : ` of ${amount(progress.total)}`;
  const rate = progress.rate && !over ? `, ${amount(Math.round(progress.rate * 10) / 10)} a second` : "";
  const left = progress.eta_s && !over ? `, ${duration(progress.eta_s)} left` : "";
  return `${amount(progress.done)}${total}${inBytes ? "" : ` ${progress.unit}`}${rate}${left}`;
}

/** Bytes as people read them. */
export function size(bytes) {
  const power = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return `${Number((bytes / 1000 ** power).toPrecision(3))} ${["bytes", "kB", "MB", "GB", "TB"][power]}`;
}

/** The last part of a URI, which is what people know it by. */
export const basename = (uri) => decodeURIComponentSafe(uri.replace(/\/+$/, "").split("/").pop() || uri);

function decodeURIComponentSafe(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
