/* Knobs that `fields.js` has no words for: taken from the API's own description, so that the form lacks none. */

// Offered as one control; and not at all: a dataset is named by its URI here, and two fields are short for the dataset's.
const WHOLE = new Set([
  "dataset.columns", "selection.budget", "selection.normalize", "selection.filters", "selection.constraints",
  "selection.target", "selection.protect", "selection.sweep", "selection.stability", "schedule", "limits", "metadata",
]);
const ELSEWHERE = new Set(["dataset.id", "dataset.uris", "train_on", "preference"]);

/** Fields for all leaves of a request that are not among `known`. */
export function furtherFields(openapi, known) {
  const schemas = openapi.components?.schemas ?? {};
  return leaves(schemas, schemas.JobRequest, "").filter(({ path }) => !known.has(path) && !ELSEWHERE.has(path)).map(fieldOf);
}

function leaves(schemas, schema, prefix) {
  return Object.entries(schema?.properties ?? {}).flatMap(([name, property]) => {
    const path = `${prefix}${name}`;
    const plain = resolved(schemas, property);
    return plain.properties && !WHOLE.has(path) ? leaves(schemas, plain, `${path}.`) : [{ path, schema: { ...plain, ...described(property) } }];
  });
}

/** A schema without its reference and without the null that says that it may be left out. */
function resolved(schemas, schema) {
  const some = schema.anyOf?.find((one) => one.type !== "null") ?? schema;
  return some.$ref ? schemas[some.$ref.split("/").pop()] : some;
}

const described = ({ description, default: value }) => ({ ...(description && { description }), ...(value !== undefined && { default: value }) });

function fieldOf({ path, schema }) {
  const label = path.split(".").slice(-2).join(" ").replaceAll("_", " ");
  const field = { path, label: label[0].toUpperCase() + label.slice(1), help: (schema.description ?? "").replaceAll("`", ""), folded: true };
  const value = schema.default ?? undefined;
  if (schema.enum) return { ...field, kind: "select", options: [...(value === undefined ? [["", "not set"]] : []), ...schema.enum.map((one) => [String(one)])], value: value === undefined ? "" : String(value) };
  if (schema.type === "boolean") return { ...field, kind: "boolean", value: value ?? false };
  if (schema.type === "integer" || schema.type === "number") return { ...field, kind: "number", value };
  if (schema.type === "array") return { ...field, kind: "list", value: value?.join(", "), numbers: ["integer", "number"].includes(schema.items?.type), help: `${field.help} Several are set apart by commas.` };
  return { ...field, kind: schema.type === "object" ? "json" : undefined, value: typeof value === "string" ? value : undefined };
}
