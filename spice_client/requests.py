"""What a job's request may hold, as types of plain dictionaries: the service is who checks them.

`JobRequest` is the body of `POST /jobs`, whose every field is described in the API's own documentation.
"""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic, and what checks with it, takes no other before Python 3.12

Method = Literal[
    "spice",
    "fisher",
    "dpp",
    "grad_norm",
    "random",
    "less",
    "rds_plus",
    "tsds",
    "ifd",
    "selectit",
    "perplexity",
    "length",
    "grad_match",
    "facility_location",
]

TrainOn = Literal["all", "last"]
Preference = Literal["chosen", "rejected", "dpo", "all"]


class ColumnNames(TypedDict, total=False):
    """Which columns hold what, by role."""

    prompt: str
    response: str
    completion: str
    instruction: str
    input: str
    output: str
    messages: str
    chosen: str
    rejected: str
    text: str
    system: str
    history: str
    tools: str
    chat_template_kwargs: str
    label: str


class DatasetSource(TypedDict, total=False):
    """The data: a URI, or the id of a registered dataset."""

    uri: str
    uris: list[str] | None
    id: str
    format: Literal["jsonl", "json", "csv", "parquet"]
    columns: ColumnNames
    train_on: TrainOn
    preference: Preference
    source_column: str | None
    max_rejected_fraction: float


class ModelSource(TypedDict):
    """The proxy model that scores the data."""

    uri: str
    dtype: NotRequired[Literal["float32", "bfloat16"]]
    max_length: NotRequired[int]
    devices: NotRequired[Literal["one", "all"]]
    chat_template: NotRequired[str | None]


class AdapterReference(TypedDict):
    """A LoRA adapter that PEFT saved."""

    uri: str


class GradientSettings(TypedDict, total=False):
    """Whose gradients, and how small they are made."""

    target: Literal["lora", "linear", "last_layer"]
    rank: int
    layers: list[str]
    adapter: AdapterReference
    warmup_steps: int
    warmup_learning_rate: float
    preconditioner: Literal["none", "adam"]
    sketch_dim: int
    seed: int
    loss_normalization: Literal["sum", "mean"]
    loss_over: Literal["response", "row"]
    prompt_effect: bool
    store: Literal["float32", "float16"]


class BudgetSize(TypedDict, total=False):
    """How much to pick: a fraction of the usable rows, a count of rows, or rows of so many tokens."""

    fraction: float
    count: int
    tokens: int


class ClipLength(TypedDict):
    """How long a gradient may be, as a quantile of the pool's lengths."""

    clip: float


class RowBounds(TypedDict, total=False):
    """Which rows stay, by a figure of theirs."""

    min: float
    max: float
    min_quantile: float
    max_quantile: float


class RowFilters(TypedDict, total=False):
    """Which rows may be picked, by the figures of each."""

    loss: RowBounds
    norm: RowBounds
    cosine: RowBounds
    ifd: RowBounds
    end_loss: RowBounds


class SourceShare(TypedDict, total=False):
    """How much of the picks may come from a source."""

    min: float
    max: float


class MarkedRows(TypedDict):
    """The rows that a column marks."""

    column: str


class NearDuplicates(TypedDict, total=False):
    """Which rows are too much alike for both to be picked."""

    cosine: float
    text: bool


class SelectionConstraints(TypedDict, total=False):
    """What the picks have to keep to."""

    sources: dict[str, SourceShare]
    include: list[int] | MarkedRows
    exclude: list[int] | MarkedRows
    near_duplicates: NearDuplicates


class ProtectedRows(TypedDict):
    """Rows that training on the picks must not harm: a small dataset."""

    dataset: DatasetSource
    price: NotRequired[float]
    group_column: NotRequired[str]


class TargetRows(ProtectedRows):
    """Rows of what the picks are for: a small dataset."""

    weight: NotRequired[float]


class SweepSettings(TypedDict, total=False):
    """Settings to select with as well."""

    conflict_penalty: list[float]
    early_stop_ratio: list[float | None]
    alpha: list[float | Literal["auto"]]
    normalize: list[Literal["none", "clip", "unit"] | ClipLength]


class StabilitySettings(TypedDict, total=False):
    """How often to select again."""

    sketches: int
    bootstrap: int


class SelectionOptions(TypedDict):
    """How to pick, apart from how many."""

    method: NotRequired[Method]
    fisher: NotRequired[Literal["exact", "reference", "reference_top_k"]]
    alpha: NotRequired[float | Literal["auto"]]
    normalize: NotRequired[Literal["none", "clip", "unit"] | ClipLength]
    filters: NotRequired[RowFilters | None]
    representative: NotRequired[float | None]
    constraints: NotRequired[SelectionConstraints | None]
    target: NotRequired[TargetRows | None]
    protect: NotRequired[ProtectedRows | None]
    sweep: NotRequired[SweepSettings | None]
    stability: NotRequired[StabilitySettings | None]
    conflict_penalty: NotRequired[float]
    early_stop_ratio: NotRequired[float | None]
    seed: NotRequired[int]
    baselines: NotRequired[list[Method]]
    baseline_repeats: NotRequired[int]
    perplexity: NotRequired[Literal["mid", "top"]]
    partitions: NotRequired[int | None]
    curvature: NotRequired[bool]


class SelectionSettings(SelectionOptions):
    """How to pick."""

    budget: NotRequired[BudgetSize]


class TrainingSchedule(TypedDict, total=False):
    """Windows of a shuffled pool, and training on their picks in between."""

    windows: int
    keep: int
    train_every: int
    epochs: int
    learning_rate: float
    weight_decay: float
    warmup_ratio: float
    seed: int


class Webhook(TypedDict):
    """Whom to tell when the job ends."""

    url: str


class ComputingLimits(TypedDict, total=False):
    """How much may be computed for a job."""

    gradient_tokens: int | None
    seconds: float | None
    on_limit: Literal["stop", "select"]


class JobOptions(TypedDict):
    """What a job may have besides a dataset, a model and a selection."""

    train_on: NotRequired[TrainOn | None]
    preference: NotRequired[Preference | None]
    gradients: NotRequired[GradientSettings]
    preset: NotRequired[Literal["paper-qwen2-7b", "paper-llama2-7b", "authors-code"] | None]
    schedule: NotRequired[TrainingSchedule | None]
    name: NotRequired[str]
    metadata: NotRequired[dict[str, str]]
    expires_at: NotRequired[str]
    webhook: NotRequired[Webhook]
    timeout_s: NotRequired[float]
    priority: NotRequired[Literal["low", "normal", "high"]]
    limits: NotRequired[ComputingLimits | None]
    extends: NotRequired[str | None]


class JobRequest(JobOptions):
    """A selection job."""

    dataset: DatasetSource
    model: ModelSource
    selection: NotRequired[SelectionSettings]
