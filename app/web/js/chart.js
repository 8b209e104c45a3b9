/* Charts that the page draws itself: lines of several jobs on shared axes, with their values under the pointer. */

import { h, table } from "./dom.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 300;
const EDGE = { left: 56, right: 14, top: 12, bottom: 40 };
const TABLE_ROWS = 12;

function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Round numbers from 0 on, of which the last is not below `top`. */
export function ticks(top, wanted = 5) {
  if (!(top > 0)) return [0, 1];
  const raw = top / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw * 0.999);
  return Array.from({ length: Math.ceil(top / step - 1e-9) + 1 }, (_, place) => Number((place * step).toPrecision(12)));
}

/** The value of a line at `x`: of its last point that is not right of it; null before the first. */
export function valueAt(points, x) {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= x) low = middle + 1;
    else high = middle;
  }
  return low ? points[low - 1][1] : null;
}

/**
 * A figure with lines of several jobs.
 *
 * `lines` are `{ name, points: [[x, y], ...] }` in the order of the jobs, `x` is `{ label, format, whole }`, `y` is
 * `{ format }`, and `width` is in pixels.
 */
export function chart({ name, title, caption, x, y, lines, width, steps = false }) {
  const right = Math.max(...lines.flatMap((line) => line.points.map((point) => point[0])), 1e-9);
  const across = ticks(right);
  const up = ticks(Math.max(...lines.flatMap((line) => line.points.map((point) => point[1])), 0));
  const end = across.findLast((tick) => tick <= right * 1.0001) === right ? right : Math.max(right, across.at(-2) ?? right);
  const place = (value) => EDGE.left + (value / end) * (width - EDGE.left - EDGE.right);
  const level = (value) => HEIGHT - EDGE.bottom - (value / up.at(-1)) * (HEIGHT - EDGE.bottom - EDGE.top);
  const path = (points) => points.map(([at, value], index) => `${index ? (steps ? `H${place(at).toFixed(1)}V` : "L") : "M"}${index && steps ? "" : `${place(at).toFixed(1)},`}${level(value).toFixed(1)}`).join("");
  const cursor = s("line", { class: "limit", y1: EDGE.top, y2: HEIGHT - EDGE.bottom, visibility: "hidden" });
  const dots = lines.map((_, at) => s("circle", { class: `dot series-${at}`, r: 3.5, visibility: "hidden" }));
  const picture = s(
    "svg",
    { class: "figure chart", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${title}: ${lines.map((line) => line.name).join(", ")}` },
    ...up.map((tick) => s("g", {}, s("line", { class: "rule", x1: EDGE.left, x2: width - EDGE.right, y1: level(tick), y2: level(tick) }), text(y.format(tick), EDGE.left - 8, level(tick) + 4, "end"))),
    ...across.filter((tick) => tick <= end).map((tick) => text(x.format(tick), place(tick), HEIGHT - EDGE.bottom + 18, "middle")),
    text(x.label, width - EDGE.right, HEIGHT - 4, "end", "name"),
    ...lines.map((line, at) => s("path", { class: `line series-${at}`, d: path(line.points) })),
    cursor,
    ...dots,
  );
  const values = lines.map(() => h("b", {}));
  const where = h("span", { class: "soft" });
  const key = h("ul", { class: "key" }, lines.map((line, at) => h("li", {}, swatch(at), ` ${line.name} `, values[at])), h("li", {}, where));
  picture.addEventListener("pointermove", point);
  picture.addEventListener("pointerleave", leave);
  return h(
    "figure",
    { class: `figure-box ${name}` },
    h("h2", {}, title),
    key,
    h("div", { class: "drawing" }, picture),
    h("figcaption", {}, caption),
    h("details", {}, h("summary", {}, "The numbers", h("span", { class: "unseen" }, ` of ${title}`)), table(title, [x.label, ...lines.map((line) => line.name)], numbers(), { class: "named" })),
  );

  function point(event) {
    const box = picture.getBoundingClientRect();
    const at = Math.min(Math.max(((event.clientX - box.left) / box.width) * width, EDGE.left), width - EDGE.right);
    const value = ((at - EDGE.left) / (width - EDGE.left - EDGE.right)) * end;
    move(cursor, { x1: at, x2: at, visibility: "visible" });
    where.textContent = `at ${x.format(x.whole ? Math.round(value) : value)}`;
    lines.forEach((line, number) => {
      const found = valueAt(line.points, value);
      const beyond = value > line.points.at(-1)[0] * 1.001;
      values[number].textContent = found === null || beyond ? "" : y.format(found);
      move(dots[number], found === null || beyond ? { visibility: "hidden" } : { cx: at, cy: level(found), visibility: "visible" });
    });
  }

  function leave() {
    for (const one of [cursor, ...dots]) move(one, { visibility: "hidden" });
    for (const one of [...values, where]) one.textContent = "";
  }

  function numbers() {
    const marks = Array.from({ length: TABLE_ROWS }, (_, at) => ((at + 1) / TABLE_ROWS) * end).map((value) => (x.whole ? Math.round(value) : value));
    return [...new Set(marks)].map((value) => [
      h("td", { class: "number" }, x.format(value)),
      ...lines.map((line) => {
        const found = value > line.points.at(-1)[0] * 1.001 ? null : valueAt(line.points, value);
        return h("td", { class: "number" }, found === null ? "" : y.format(found));
      }),
    ]);
  }
}

function move(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

function text(words, x, y, anchor, kind = "") {
  return s("text", { x, y, "text-anchor": anchor, class: kind }, words);
}

/** The line that stands for a job in the key. */
export function swatch(at) {
  return s("svg", { class: "figure swatch", viewBox: "0 0 26 8", "aria-hidden": "true" }, s("path", { class: `line series-${at}`, d: "M1,4H25" }));
}
