/* Figures come drawn from the server. What is taken over is shapes and text, whatever the document holds. */

import { h, table } from "./dom.js";

const SHAPES = new Set(["svg", "g", "path", "line", "rect", "text", "title"]);
const ATTRIBUTES = new Set(["class", "viewBox", "width", "height", "role", "aria-label", "d", "x", "y", "x1", "x2", "y1", "y2", "text-anchor"]);
const policy = globalThis.trustedTypes?.createPolicy("figures", { createHTML: (text) => text }) ?? { createHTML: (text) => text };

/** An SVG as text, as an element of this document. */
function drawing(text) {
  const parsed = new DOMParser().parseFromString(policy.createHTML(text), "image/svg+xml").documentElement;
  if (parsed.localName !== "svg") return "";
  for (const element of [parsed, ...parsed.querySelectorAll("*")]) {
    if (!SHAPES.has(element.localName)) element.remove();
    for (const { name } of [...element.attributes]) if (!ATTRIBUTES.has(name) && name !== "xmlns") element.removeAttribute(name);
  }
  return document.importNode(parsed, true);
}

/** A figure with its words and, folded, its numbers; `onRows` is told the picks behind a mark that is clicked. */
export function figure(found, onRows) {
  const drawn = h(
    "figure",
    { class: `figure-box ${found.name}` },
    h("h3", {}, found.title),
    answering(h("div", { class: "drawing" }, drawing(found.svg)), found, onRows),
    h("figcaption", {}, found.caption),
    h("details", {}, h("summary", {}, "The numbers", h("span", { class: "unseen" }, ` of ${found.title}`)), table(found.title, found.table.columns, found.table.rows)),
  );
  return found.folded ? h("details", { class: "folded" }, h("summary", {}, `${found.title}: ${found.folded}`), drawn) : drawn;
}

/** A drawing that tells the values of the mark nearest to the pointer. What it tells is in the table of numbers, too. */
function answering(place, { marks, pointing }, onRows) {
  const picture = place.querySelector("svg");
  if (!picture || !marks.length) return place;
  const told = h("p", { class: "told", hidden: true, "aria-hidden": "true" });
  const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, value] of Object.entries({ class: "dot series-0", r: 4, visibility: "hidden" })) dot.setAttribute(name, value);
  picture.append(dot);
  place.append(told);
  let at = null;
  picture.addEventListener("pointermove", point);
  picture.addEventListener("pointerdown", point);
  picture.addEventListener("pointerleave", leave);
  picture.addEventListener("click", (event) => (point(event), onRows && Object.keys(at.rows).length && onRows(at.rows, at.text)));
  return place;

  function point(event) {
    const box = picture.getBoundingClientRect();
    const scale = picture.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const far = (mark) => (pointing === "y" ? 0 : (mark.x - x) ** 2) + (pointing === "x" ? 0 : (mark.y - y) ** 2);
    at = marks.reduce((best, mark) => (far(mark) < far(best) ? mark : best));
    const asks = onRows && Object.keys(at.rows).length > 0;
    dot.setAttribute("cx", at.x);
    dot.setAttribute("cy", at.y);
    dot.setAttribute("visibility", "visible");
    picture.classList.toggle("asks", asks);
    told.textContent = at.text;
    told.hidden = false;
    const left = Math.min(Math.max(at.x / scale - told.offsetWidth / 2, 0), Math.max(place.clientWidth - told.offsetWidth, 0));
    const above = at.y / scale - told.offsetHeight - 10;
    told.style.left = `${left}px`;
    told.style.top = `${above < 0 ? at.y / scale + 10 : above}px`;
  }

  function leave() {
    told.hidden = true;
    dot.setAttribute("visibility", "hidden");
  }
}

/** Widths for the place that figures have: those of a figure and of the wide one. */
export function widths(place, columns) {
  const room = place.clientWidth || 720;
  const gap = 48;
  const width = columns === 1 || room < 760 ? room : (room - gap) / 2;
  const fit = (pixels) => Math.round(Math.min(Math.max(pixels, 280), 1600));
  return `width=${fit(width)}&curve_width=${fit(room)}`;
}
