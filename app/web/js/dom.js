/* Build elements. Text only ever goes in as text: nothing that a dataset or a client wrote becomes markup. */

/** An element with properties (`class`, `for`, data-*, aria-* and on* as you would write them) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.includes("-") && name !== "list" && name !== "form") element[name] = value;
    else element.setAttribute(name === "class" ? "class" : name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A table with a caption for those who do not see where it stands. */
export function table(caption, columns, rows, properties = {}) {
  return h(
    "div",
    { class: "wide", tabIndex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      properties,
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, columns.map((column) => (column instanceof HTMLTableCellElement ? column : h("th", { scope: "col" }, column))))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => (cell instanceof HTMLTableCellElement ? cell : h("td", {}, cell)))))),
    ),
  );
}

/** Say something to those who listen rather than look. */
export function announce(text) {
  const live = document.getElementById("live");
  if (live.textContent !== text) live.textContent = text;
}

/** The server's error, as a person should read it. */
export function failure(problem) {
  return h("div", { class: "failure", role: "alert" }, h("strong", {}, problem.title), h("p", {}, problem.detail ?? ""));
}
