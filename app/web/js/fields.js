/* Every knob of a job: where it goes in the request, what it does. A test holds this list to the API's own. */

const METHODS = [
  ["spice", "spice: log-det with a conflict penalty"],
  ["fisher", "fisher: log-det alone"],
  ["dpp", "dpp: diversity of directions"],
  ["grad_norm", "grad_norm: largest gradients"],
  ["random", "random"],
];

export const SECTIONS = [
  {
    title: "Dataset",
    fields: [
      { path: "dataset.uri", label: "URI", required: true, placeholder: "file:///data/train.jsonl", help: "file:// inside the allowed directories, https:// or s3://. JSONL, JSON, CSV or Parquet, each also .gz or .zst." },
      { path: "dataset.format", label: "Format", kind: "select", options: [["", "as the name ends"], ["jsonl"], ["json"], ["csv"], ["parquet"]], help: "Only for files whose name does not tell.", folded: true },
      { path: "dataset.columns", label: "Columns", kind: "columns", help: "Which columns hold what. Left alone, it is recognised by the usual names.", folded: true },
      { path: "dataset.source_column", label: "Source column", help: "Says where a row comes from, for the figure by source. Left empty: source, dataset or domain, if there is one.", folded: true },
      { path: "dataset.max_rejected_fraction", label: "Unusable rows allowed", kind: "number", value: 0.05, help: "A share of all rows: if more than this can't be used, the job fails.", folded: true },
    ],
  },
  {
    title: "Model",
    fields: [
      { path: "model.uri", label: "URI", required: true, placeholder: "file:///models/smollm2", help: "The proxy model whose gradients score the rows: a small one of the family that you train." },
      { path: "model.max_length", label: "Longest row, tokens", kind: "number", value: 512, help: "Longer rows are cut on the right." },
      { path: "model.dtype", label: "Numbers", kind: "select", options: [["float32"], ["bfloat16"]], value: "float32", help: "bfloat16 halves memory, on GPUs that have it.", folded: true },
    ],
  },
  {
    title: "Selection",
    fields: [
      { path: "selection.budget", label: "Budget", kind: "budget", help: "How many rows to pick." },
      { path: "selection.method", label: "Method", kind: "select", options: METHODS, value: "spice", help: "All but spice are there to compare with." },
      { path: "selection.conflict_penalty", label: "Conflict penalty, lambda", kind: "number", value: 0.1, help: "What full conflict with the picks so far costs, in nats. 0.1 to 0.5 is stable; 0 is plain information." },
      { path: "selection.baselines", label: "Compare with", kind: "checkboxes", options: METHODS.map(([name]) => [name]), value: ["random"], help: "Other methods on the same gradients, as many picks each. They cost seconds." },
      { path: "selection.baseline_repeats", label: "Runs of random", kind: "number", value: 3, help: "With a seed each; they give its curve error bars.", folded: true },
      { path: "selection.early_stop_ratio", label: "Early stop, omega", kind: "number", placeholder: "never", help: "Stop when a pick adds no more than this share of what the first added. The paper uses 0.5.", folded: true },
      { path: "selection.alpha", label: "Scale, alpha", kind: "auto", placeholder: "auto", help: "Scale of the information. auto is 1 / median squared norm, which keeps lambda's meaning from model to model.", folded: true },
      { path: "selection.partitions", label: "Parts", kind: "number", placeholder: "none", help: "Select in so many random parts, over all workers, then merge. For millions of rows; empty is the exact greedy. For methods spice and fisher.", folded: true },
      { path: "selection.curvature", label: "Curvature", kind: "boolean", help: "Also compute the factor that the information's curvature proves beforehand. For lambda 0 or method fisher, without parts; costs about as much as picking every row.", folded: true },
      { path: "selection.seed", label: "Seed", kind: "number", value: 0, help: "Of whatever draws at random.", folded: true },
    ],
  },
  {
    title: "Gradients",
    fields: [
      { path: "gradients.target", label: "Of what", kind: "select", options: [["lora", "lora: an adapter"], ["linear", "linear: the linear layers themselves"], ["last_layer", "last_layer: the output head"]], value: "lora", help: "Whose gradient is taken.", folded: true },
      { path: "gradients.rank", label: "LoRA rank", kind: "number", value: 8, help: "Of a fresh adapter.", folded: true },
      { path: "gradients.layers", label: "Layers", kind: "list", placeholder: "q_proj, layers.1?.mlp.*", help: "Which linear layers, by the last parts of their names or by patterns with * and ?; several are set apart by commas. Empty: all of them. For targets lora and linear.", folded: true },
      { path: "gradients.adapter.uri", label: "Adapter", placeholder: "file:///models/adapter", help: "Directory of a LoRA adapter that PEFT saved, to take the gradients of. For target lora; empty for a fresh one.", folded: true },
      { path: "gradients.warmup_steps", label: "Warm-up steps", kind: "number", value: 0, help: "Steps, of 8 rows each, that a fresh adapter is trained for before rows are scored. For target lora.", folded: true },
      { path: "gradients.warmup_learning_rate", label: "Warm-up learning rate", kind: "number", value: 0.0002, help: "Of Adam, in these steps.", folded: true },
      { path: "gradients.preconditioner", label: "Preconditioner", kind: "select", options: [["none", "none"], ["adam", "adam: by second moments"]], value: "none", help: "adam divides every entry of a gradient by the root of its second moment.", folded: true },
      { path: "gradients.sketch_dim", label: "Sketch length", kind: "number", value: 2048, help: "Numbers that a gradient is folded into. More keep angles better and cost memory.", folded: true },
      { path: "gradients.loss_normalization", label: "Loss of a row", kind: "select", options: [["sum", "sum over its tokens"], ["mean", "mean over its tokens"]], value: "sum", help: "The mean favours short responses.", folded: true },
      { path: "gradients.normalize", label: "Length of a gradient", kind: "select", options: [["none", "as it is"], ["unit", "scaled to one"]], value: "none", help: "Scaled to one, only directions count.", folded: true },
      { path: "gradients.seed", label: "Seed", kind: "number", value: 0, help: "Of the adapter and the sketch.", folded: true },
    ],
  },
  {
    title: "Job",
    fields: [
      { path: "name", label: "Name", maxLength: 200, placeholder: "nightly", help: "To find it again." },
      { path: "timeout_s", label: "Time limit, seconds", kind: "number", placeholder: "none", help: "Counted from the job's start; a job that takes longer fails.", folded: true },
      { path: "expires_at", label: "Delete at", placeholder: "2027-01-01T00:00:00Z", help: "A time with its zone, when the job goes with all its results. Empty: as the service is set up, else never.", folded: true },
      { path: "webhook.url", label: "Webhook", placeholder: "https://\u2026", help: "Is told when the job ends, by a signed POST. https:// on a public host.", folded: true },
      { path: "metadata", label: "Notes", kind: "pairs", placeholder: "team = search", help: "One key = value a line; they are kept with the job.", folded: true },
    ],
  },
];
