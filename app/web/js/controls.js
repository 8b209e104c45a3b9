/* The controls of a form: made of `fields.js`, read into a request, and told what the server says of them. */

import { h } from "./dom.js";

const SHAPES = [
  ["", "recognised by their names", []],
  ["pair", "a prompt and a response", ["prompt", "response"]],
  ["alpaca", "instruction, input and output", ["instruction", "input", "output"]],
  ["messages", "a list of messages", ["messages"]],
];

/** A control with its label, help and place for an error. `read` gives the value, undefined for none. */
export function control(field) {
  const id = field.path.replaceAll(".", "-");
  const error = h("p", { class: "error", id: `${id}-error`, hidden: true });
  const made = (KINDS[field.kind] ?? plain)(field, id);
  const help = h("p", { class: "help", id: `${id}-help` }, field.help);
  const label = made.group ? h("legend", {}, field.label) : h("label", { for: id }, field.label, field.required ? h("span", { class: "soft" }, " required") : null);
  const element = h(made.group ? "fieldset" : "div", { class: "field", "data-path": field.path }, label, made.element, help, error);
  for (const input of element.querySelectorAll("input, select, textarea")) input.setAttribute("aria-describedby", `${id}-help ${id}-error`);
  return { ...made, field, element, say: (message) => say(message, error, [...element.querySelectorAll("input, select, textarea")]) };
}

function say(message, error, inputs) {
  error.textContent = message ?? "";
  error.hidden = !message;
  for (const input of inputs) input.toggleAttribute("aria-invalid", Boolean(message));
  if (message) for (const input of inputs) input.setAttribute("aria-invalid", "true");
  return inputs[0];
}

function plain(field, id) {
  const number = field.kind === "number";
  const input = h("input", { id, type: "text", inputMode: number ? "decimal" : "text", value: field.value ?? "", placeholder: field.placeholder ?? "", maxLength: field.maxLength ?? 4096, required: field.required, autocomplete: "off", spellcheck: false });
  if (field.recent) {
    const choice = h("select", { id: `${id}-choice`, class: "choice", hidden: true, "aria-label": `${field.label}: choose one that is here`, onchange: () => choice.value && (input.value = choice.value) });
    return { element: [input, offered(input, field.recent), choice], read: () => input.value.trim() || undefined, write: (value) => (input.value = value ?? ""), offer };

    /** What the service has to choose from, in groups of `{ title, places: [{ value, words }] }`. */
    function offer(groups, complete) {
      const there = groups.filter(({ places }) => places.length);
      choice.hidden = !there.length;
      const options = ({ places }) => places.map(({ value, words }) => h("option", { value }, words));
      choice.replaceChildren(h("option", { value: "" }, complete ? "or choose one that is here" : "or choose one of those found here"), ...there.map((group) => h("optgroup", { label: group.title }, options(group))));
    }
  }
  return { element: input, read: () => (number ? asNumber(input.value) : input.value.trim() || undefined), write: (value) => (input.value = value ?? "") };
}

const RECENT = "spice-recent-";
const MOST_RECENT = 8;

/** What was given in a field before, in this browser, as far as it keeps anything. */
function recent(kind) {
  try {
    return JSON.parse(localStorage.getItem(RECENT + kind) ?? "[]");
  } catch {
    return [];
  }
}

/** Keep what a field was given, for the next time. */
export function remember(kind, value) {
  if (!value) return;
  try {
    localStorage.setItem(RECENT + kind, JSON.stringify([value, ...recent(kind).filter((one) => one !== value)].slice(0, MOST_RECENT)));
  } catch {
    // a browser that keeps nothing offers nothing
  }
}

function offered(input, kind) {
  const list = h("datalist", { id: `${input.id}-recent` }, recent(kind).map((value) => h("option", { value })));
  input.setAttribute("list", list.id);
  return list;
}

/**
 * A number; what is none goes to the server as it is, which says what is wrong with it. So does what could be read in
 * two ways, such as 10,000, and a whole number that JavaScript would round.
 */
function asNumber(text) {
  const wanted = text.trim();
  if (wanted === "") return undefined;
  const number = Number(/^[1-9]\d{0,2}(,\d{3})+$/.test(wanted) ? NaN : wanted.replace(",", "."));
  const exact = !Number.isInteger(number) || Number.isSafeInteger(number);
  return Number.isNaN(number) || !exact ? wanted : number;
}

/** A value in JSON; what is none goes to the server as it is, likewise. */
function asJson(text) {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return text;
  }
}

const KINDS = {
  select(field, id) {
    const input = h("select", { id }, field.options.map(([value, words]) => h("option", { value, selected: value === field.value }, words ?? value)));
    return { element: input, read: () => input.value || undefined, write: (value) => (input.value = value ?? "") };
  },
  boolean(field, id) {
    const input = h("input", { id, type: "checkbox", checked: field.value });
    return { element: input, read: () => input.checked, write: (value) => (input.checked = Boolean(value)) };
  },
  list(field, id) {
    const made = plain(field, id);
    const parts = () => made.read()?.split(",").map((part) => part.trim()).filter(Boolean).map((part) => (field.numbers ? asNumber(part) : part));
    return { ...made, read: parts, write: (value) => made.write(value?.join(", ")) };
  },
  json(field, id) {
    const made = plain(field, id);
    return { ...made, read: () => asJson(made.read()), write: (value) => made.write(value ? JSON.stringify(value) : "") };
  },
  auto(field, id) {
    const made = plain(field, id);
    const text = made.read;
    return { ...made, read: () => (text() === undefined || text() === "auto" ? undefined : asNumber(text())), write: (value) => made.write(value === "auto" ? "" : value) };
  },
  checkboxes(field, id) {
    const boxes = field.options.map(([value]) => h("input", { type: "checkbox", id: `${id}-${value}`, value, checked: field.value?.includes(value) }));
    return {
      group: true,
      element: h("div", { class: "choices named" }, boxes.map((box, at) => h("label", {}, box, h("b", {}, box.value), (field.options[at][1] ?? "").replace(`${box.value}:`, "")))),
      read: () => boxes.filter((box) => box.checked && !box.disabled).map((box) => box.value),
      write: (value) => boxes.forEach((box) => (box.checked = value.includes(box.value))),
    };
  },
  budget(field, id) {
    const share = h("input", { type: "radio", name: id, id: `${id}-share`, checked: true });
    const total = h("input", { type: "radio", name: id, id: `${id}-total` });
    const bought = h("input", { type: "radio", name: id, id: `${id}-bought` });
    const fraction = h("input", { id: `${id}-fraction`, inputMode: "decimal", value: "10", autocomplete: "off", "aria-label": "Percent of the usable rows", oninput: () => (share.checked = true) });
    const amount = h("input", { id: `${id}-count`, inputMode: "numeric", autocomplete: "off", "aria-label": "Number of rows", oninput: () => (total.checked = true) });
    const tokens = h("input", { id: `${id}-tokens`, inputMode: "numeric", autocomplete: "off", "aria-label": "Number of tokens", oninput: () => (bought.checked = true) });
    const part = () => (typeof asNumber(fraction.value) === "number" ? Number((asNumber(fraction.value) / 100).toPrecision(12)) : fraction.value);
    return {
      group: true,
      element: h("div", { class: "choices" }, h("label", { for: share.id }, share, "a share of the rows, %"), fraction, h("label", { for: total.id }, total, "so many rows"), amount, h("label", { for: bought.id }, bought, "rows of so many tokens"), tokens),
      read: () => (share.checked ? { fraction: part() } : bought.checked ? { tokens: asNumber(tokens.value) ?? "" } : { count: asNumber(amount.value) ?? "" }),
      write: (value) => {
        const given = (one) => one !== null && one !== undefined;
        total.checked = given(value.count);
        bought.checked = given(value.tokens);
        share.checked = !total.checked && !bought.checked;
        if (share.checked) fraction.value = String(Number((value.fraction * 100).toPrecision(12)));
        else if (bought.checked) tokens.value = String(value.tokens);
        else amount.value = String(value.count);
      },
    };
  },
  columns(field, id) {
    const roles = new Map(SHAPES.flatMap(([, , all]) => all).map((role) => [role, h("input", { id: `${id}-${role}`, placeholder: role, autocomplete: "off" })]));
    const shape = h("select", { id, "aria-label": "Shape of a row", onchange: show }, SHAPES.map(([value, words]) => h("option", { value }, words)));
    const lines = [...roles].map(([role, input]) => h("label", { class: "role" }, role, input));
    const wanted = () => SHAPES.find(([value]) => value === shape.value)[2];
    show();
    return { group: true, element: h("div", {}, shape, lines), read, write, choose, missing };

    /** What is still to be chosen, in words; null where nothing is. */
    function missing() {
      const open = wanted().filter((role) => role !== "input" && roles.get(role).localName === "select" && !roles.get(role).value);
      return open.length ? `Choose which column holds the ${open.join(", and which the ")}.` : null;
    }

    /** From now on the columns are chosen from those that the dataset has. */
    function choose(columns) {
      for (const [role, before] of roles) {
        const known = columns.includes(before.value) || !before.value ? columns : [before.value, ...columns];
        const choice = h("select", { id: before.id, "aria-label": role }, h("option", { value: "" }, role === "input" ? "none" : `choose the ${role}`), known.map((value) => h("option", { value, selected: value === before.value }, value)));
        before.replaceWith(choice);
        roles.set(role, choice);
      }
    }
    function show() {
      [...roles.keys()].forEach((role, place) => (lines[place].hidden = !wanted().includes(role)));
    }
    function read() {
      const found = wanted().map((role) => [role, roles.get(role).value.trim() || (role === "input" ? undefined : role)]);
      return found.length ? Object.fromEntries(found.filter(([, column]) => column)) : undefined;
    }
    function write(value) {
      const given = Object.keys(value ?? {}).filter((role) => value[role]);
      shape.value = SHAPES.find(([, , all]) => all.length && all.includes(given[0]))?.[0] ?? "";
      for (const role of given) {
        const place = roles.get(role);
        if (place.localName === "select" && ![...place.options].some((one) => one.value === value[role])) place.append(h("option", { value: value[role] }, value[role]));
        place.value = value[role];
      }
      show();
    }
  },
  pairs(field, id) {
    const input = h("textarea", { id, rows: 3, placeholder: field.placeholder });
    const lines = () => input.value.split("\n").map((line) => line.trim()).filter(Boolean);
    const split = (line) => (line.includes("=") ? [line.slice(0, line.indexOf("=")).trim(), line.slice(line.indexOf("=") + 1).trim()] : [line, ""]);
    return { element: input, read: () => (lines().length ? Object.fromEntries(lines().map(split)) : undefined), write: (value) => (input.value = Object.entries(value ?? {}).map(([key, one]) => `${key} = ${one}`).join("\n")) };
  },
};
