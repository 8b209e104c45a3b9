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

/** A figure with its words and, folded, its numbers. */
export function figure(found, level = "h3") {
  return h(
    "figure",
    { class: `figure-box ${found.name}` },
    h(level, {}, found.title),
    h("div", { class: "drawing" }, drawing(found.svg)),
    h("figcaption", {}, found.caption),
    h("details", {}, h("summary", {}, "The numbers", h("span", { class: "unseen" }, ` of ${found.title}`)), table(found.title, found.table.columns, found.table.rows)),
  );
}

/** Widths for the place that figures have: those of a figure and of the wide one. */
export function widths(place, columns) {
  const room = place.clientWidth || 720;
  const gap = 48;
  const width = columns === 1 || room < 760 ? room : (room - gap) / 2;
  const fit = (pixels) => Math.round(Math.min(Math.max(pixels, 280), 1600));
  return `width=${fit(width)}&curve_width=${fit(room)}`;
}
