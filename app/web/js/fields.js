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
      { path: "dataset.uri", label: "URI", required: true, recent: "datasets", placeholder: "file:///data/train.jsonl", help: "file:// inside the allowed directories, https:// or s3://. JSONL, JSON, CSV or Parquet, each also .gz or .zst." },
      { path: "dataset.format", label: "Format", kind: "select", options: [["", "as the name ends"], ["jsonl"], ["json"], ["csv"], ["parquet"]], help: "Needed only if the file's name has no known suffix.", folded: true },
      { path: "dataset.columns", label: "Columns", kind: "columns", help: "Which columns hold prompt, response or messages. If empty, the usual names are recognised.", folded: true },
      { path: "dataset.source_column", label: "Source column", help: "The column with the source of each row, for the figure by source. If empty: source, dataset or domain, if the dataset has such a column.", folded: true },
      { path: "dataset.train_on", label: "Learned turns", kind: "select", options: [["all", "all answers"], ["last", "the last answer"]], value: "all", help: "Which answers of a conversation are learned.", folded: true },
      { path: "dataset.preference", label: "Preference pairs", kind: "select", options: [["chosen", "chosen answer"], ["rejected", "rejected answer"], ["dpo", "dpo: gradient of the DPO loss"], ["all", "all answers"]], value: "chosen", help: "Which answer of a row with a chosen and a rejected one is learned; dpo takes the gradient of the DPO loss of the pair.", folded: true },
      { path: "dataset.max_rejected_fraction", label: "Unusable rows allowed", kind: "number", value: 0.05, help: "The job fails if a larger share of all rows can't be used.", folded: true },
    ],
  },
  {
    title: "Model",
    fields: [
      { path: "model.uri", label: "URI", required: true, recent: "models", placeholder: "file:///models/smollm2", help: "The proxy model whose gradients score the rows: a small one of the family that you train." },
      { path: "model.max_length", label: "Longest row, tokens", kind: "number", value: 512, help: "Longer rows are cut on the right." },
      { path: "model.chat_template", label: "Chat template", maxLength: 200, placeholder: "default", help: "Name of a chat template, if the tokenizer has several. If empty: default, and tool_use for rows with tools.", folded: true },
      { path: "model.dtype", label: "Numbers", kind: "select", options: [["float32"], ["bfloat16"]], value: "float32", help: "bfloat16 halves memory, on GPUs that have it.", folded: true },
      { path: "model.devices", label: "GPUs", kind: "select", options: [["one", "one"], ["all", "all of a worker"]], value: "one", help: "all: the model's blocks are spread over the GPUs of a worker, for a model larger than one of them.", folded: true },
    ],
  },
  {
    title: "Selection",
    fields: [
      { path: "selection.budget", label: "Budget", kind: "budget", help: "How much to pick: a share of the rows, so many rows, or as many as some tokens buy." },
      { path: "selection.method", label: "Method", kind: "select", options: METHODS, value: "spice", help: "Methods other than spice serve as comparisons." },
      { path: "selection.conflict_penalty", label: "Conflict penalty, lambda", kind: "number", value: 0.1, help: "The cost of full conflict with the earlier picks, in nats. 0.1 to 0.5 is stable; 0 selects by information alone." },
      { path: "selection.baselines", label: "Compare with", kind: "checkboxes", options: METHODS.map(([name]) => [name]), value: ["random"], help: "Other methods on the same gradients, with as many picks. They cost seconds." },
      { path: "selection.baseline_repeats", label: "Runs of random", kind: "number", value: 3, help: "Each run has its own seed; several runs give the curve error bars.", folded: true },
      { path: "selection.normalize", label: "Length of a gradient", kind: "json", value: "unit", help: 'unit: every gradient is scaled to length one. none: as it is. clip: shortened to the median; {"clip": 0.9} to that quantile.', folded: true },
      { path: "selection.filters", label: "Filters", kind: "json", placeholder: '{"ifd": {"max": 1.0}, "loss": {"max_quantile": 0.95}}', help: "Bounds on ifd, loss, norm and cosine: min, max, min_quantile, max_quantile. Empty: the default filter against rows that look wrong. {}: none.", folded: true },
      { path: "selection.constraints", label: "Constraints", kind: "json", placeholder: '{"sources": {"code": {"min": 0.2}}, "exclude": [3, 7], "near_duplicates": {"cosine": 0.98, "text": true}}', help: "What the picks keep to: shares by source, rows that must or must not be in, no near-duplicates.", folded: true },
      { path: "selection.target", label: "Target", kind: "json", placeholder: '{"dataset": {"uri": "file:///data/target.jsonl"}, "weight": 0.8}', help: "A small dataset of what the picks are for: information counts more in the directions of its gradients.", folded: true },
      { path: "selection.protect", label: "Protect", kind: "json", placeholder: '{"dataset": {"uri": "file:///data/keep.jsonl"}, "price": 0.1}', help: "A small dataset of what training must not lose: rows that pull against it pay a price.", folded: true },
      { path: "selection.sweep", label: "Sweep", kind: "json", placeholder: '{"conflict_penalty": [0, 0.1, 0.5, 1], "normalize": ["unit", "none"]}', help: "Lists of conflict_penalty, early_stop_ratio, alpha and normalize to select with as well. Costs seconds for each combination.", folded: true },
      { path: "selection.stability", label: "Stability", kind: "json", placeholder: '{"sketches": 5, "bootstrap": 20}', help: "Select again from other sketches and resampled pools: the share of these that picks a row tells how sure it is.", folded: true },
      { path: "selection.early_stop_ratio", label: "Early stop, omega", kind: "number", placeholder: "never", help: "Stop when a pick adds no more than this share of what the first added. The paper uses 0.5.", folded: true },
      { path: "selection.alpha", label: "Scale, alpha", kind: "auto", placeholder: "auto", help: "Scale of the information. auto is 1 / median squared norm, which keeps lambda's meaning from model to model.", folded: true },
      { path: "selection.partitions", label: "Parts", kind: "number", placeholder: "none", help: "Select in so many random parts, over all workers, then merge. For millions of rows; empty is the exact greedy. For methods spice and fisher.", folded: true },
      { path: "selection.curvature", label: "Curvature", kind: "boolean", help: "Also compute the factor that the information's curvature proves beforehand. For lambda 0 or method fisher, without parts; costs about as much as picking every row.", folded: true },
      { path: "selection.seed", label: "Seed", kind: "number", value: 0, help: "Seed of every random choice.", folded: true },
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
      { path: "gradients.sketch_dim", label: "Sketch length", kind: "number", value: 2048, help: "Length of the sketch of a gradient. Longer sketches keep angles better and cost memory.", folded: true },
      { path: "gradients.store", label: "Sketches kept as", kind: "select", options: [["float32"], ["float16"]], value: "float32", help: "float16 halves what sketches take of the disk, and rounds them.", folded: true },
      { path: "gradients.loss_normalization", label: "Loss of a row", kind: "select", options: [["sum", "sum over its tokens"], ["mean", "mean over its tokens"]], value: "sum", help: "The mean favours short responses.", folded: true },
      { path: "gradients.prompt_effect", label: "Effect of the prompt", kind: "boolean", value: true, help: "Also take each response's loss without its prompt, by one more forward pass: it tells rows whose response does not belong to the prompt.", folded: true },
      { path: "gradients.seed", label: "Seed", kind: "number", value: 0, help: "Seed of the adapter and the sketch.", folded: true },
    ],
  },
  {
    title: "Job",
    fields: [
      { path: "name", label: "Name", maxLength: 200, placeholder: "nightly", help: "To find it again." },
      { path: "priority", label: "Priority", kind: "select", options: [["low"], ["normal"], ["high"]], value: "normal", help: "Workers take a project's jobs of higher priority first. Projects take turns, whatever the priority.", folded: true },
      { path: "limits", label: "Limits", kind: "json", placeholder: '{"seconds": 3600, "on_limit": "select"}', help: "gradient_tokens or seconds that the job may spend on gradients. on_limit: stop fails the job, select picks from the rows that are scored by then.", folded: true },
      { path: "timeout_s", label: "Time limit, seconds", kind: "number", placeholder: "none", help: "Counted from the job's start; a job that takes longer fails.", folded: true },
      { path: "expires_at", label: "Delete at", placeholder: "2027-01-01T00:00:00Z", help: "A time with its zone, after which the job is deleted with all its results. If empty, the service's default holds.", folded: true },
      { path: "webhook.url", label: "Webhook", placeholder: "https://\u2026", help: "A public https:// URL that gets a signed POST when the job ends.", folded: true },
      { path: "metadata", label: "Notes", kind: "pairs", placeholder: "team = search", help: "One key = value per line; stored with the job.", folded: true },
    ],
  },
];
