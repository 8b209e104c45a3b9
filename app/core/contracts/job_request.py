"""What a client asks of a job: the contract between the service that stores it and the worker that carries it out.

Only dataset, model and budget are required; the defaults serve.
"""

from __future__ import annotations

import uuid
from math import ceil, prod
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from app.core.contracts.schema import Expiry, Metadata, Name, Request, Storable, Text
from app.core.settings import LONGEST_S
from app.core.uris.datasets import Format

EXAMPLE_REQUEST: dict[str, Any] = {
    "dataset": {
        "uri": "file:///data/train.jsonl",
        "columns": {"prompt": "instruction", "response": "output"},
    },
    "model": {"uri": "file:///models/smollm2", "dtype": "float32", "max_length": 512},
    "gradients": {"target": "lora", "rank": 8, "sketch_dim": 2048, "seed": 0},
    "selection": {
        "method": "spice",
        "budget": {"fraction": 0.1},
        "alpha": "auto",
        "conflict_penalty": 0.1,
        "early_stop_ratio": None,
    },
    "name": "nightly",
    "metadata": {"team": "search"},
}

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
CLIMBING_METHODS: frozenset[Method] = frozenset({"spice", "fisher", "dpp"})
"""Methods that pick by marginal gains."""
ORDERED_METHODS: frozenset[Method] = frozenset(get_args(Method)) - CLIMBING_METHODS - {"grad_norm", "random"}
"""Methods that order rows by something else than their gradient sketches' gains and lengths, or by none of it."""
TARGETED_METHODS: frozenset[Method] = frozenset({"less", "rds_plus", "tsds"})
"""Methods that compare rows with those of `selection.target`."""

Priority = Literal["low", "normal", "high"]
PRIORITIES: dict[Priority, int] = {"low": -1, "normal": 0, "high": 1}

SMALLEST_ALPHA, LARGEST_ALPHA = 1e-100, 1e100
"""No product with the squared norm of a float32 sketch, or with its inverse, is beyond what float64 holds."""


def _auto_or_number(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """One message for both; pydantic's own would name its functions."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(f"must be 'auto' or a number from {SMALLEST_ALPHA:g} to {LARGEST_ALPHA:g}") from None


Alpha = Annotated[
    Literal["auto"] | Annotated[float, Field(ge=SMALLEST_ALPHA, le=LARGEST_ALPHA)], WrapValidator(_auto_or_number)
]


_SHAPES: tuple[tuple[frozenset[str], frozenset[str]], ...] = (  # needed, allowed besides
    (frozenset({"prompt", "response"}), frozenset()),
    (frozenset({"prompt", "completion"}), frozenset()),
    (frozenset({"instruction", "output"}), frozenset({"input"})),
    (frozenset({"messages"}), frozenset()),
    (frozenset({"chosen", "rejected"}), frozenset({"prompt"})),
    (frozenset({"text"}), frozenset()),
)
_FURTHER = frozenset({"system", "history", "tools", "chat_template_kwargs", "label"})


class Columns(Request):
    """Which columns hold what; what is left out is recognised by the column names."""

    prompt: Text | None = Field(default=None, description="Text, or the turns before the completion.")
    response: Text | None = Field(default=None, description="Text, or turns.")
    completion: Text | None = Field(default=None, description="Another name for `response`.")
    instruction: Text | None = None
    input: Text | None = None
    output: Text | None = None
    messages: Text | None = Field(default=None, description="The turns of a conversation.")
    chosen: Text | None = Field(default=None, description="Of a pair of responses, the preferred one.")
    rejected: Text | None = Field(default=None, description="Of a pair of responses, the other one.")
    text: Text | None = Field(default=None, description="Plain text, all of it learned.")
    system: Text | None = Field(default=None, description="The system prompt.")
    history: Text | None = Field(default=None, description="Turns before the prompt, as pairs or messages.")
    tools: Text | None = Field(default=None, description="Descriptions of functions, given to the chat template.")
    chat_template_kwargs: Text | None = Field(default=None, description="Further variables for the chat template.")
    label: Text | None = Field(default=None, description="Whether the response is desired, as KTO has it.")

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        given = frozenset(self.model_dump(exclude_none=True))
        main = given - _FURTHER
        if not given or (main and not any(needed <= main <= needed | allowed for needed, allowed in _SHAPES)):
            raise ValueError(
                "must name prompt and response, or instruction, output and perhaps input, or messages, or chosen and "
                "rejected, or text; and perhaps system, history, tools, chat_template_kwargs, label; "
                f"it names {', '.join(sorted(given)) or 'none'}"
            )
        return self


TrainOn = Literal["all", "last"]
Preference = Literal["chosen", "rejected", "dpo", "all"]
_TRAIN_ON = "Which replies of a conversation carry loss: every one, or the last alone."
_PREFERENCE = (
    "Of rows with a chosen and a rejected response, which is learned; `dpo` takes the gradient of the DPO loss of the "
    "pair, the model being its own reference. Of rows with a label: `chosen` leaves out those labelled false, "
    "`rejected` those labelled true, `all` none."
)


SOURCE_COLUMNS = ("source", "dataset", "domain")
"""Columns that are taken for a row's source where none is named."""


class DatasetRef(Request):
    """The data: a URI, or the id of a registered dataset."""

    uri: Text | None = Field(default=None, description="As for `POST /datasets`.")
    uris: tuple[Text, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Many of them, in the order in which their rows are numbered.",
    )
    id: uuid.UUID | None = Field(default=None, description="A registered dataset.")
    format: Format | None = Field(default=None, description="Overrides what the URI's suffix says.")
    columns: Columns | None = None
    train_on: TrainOn = Field(default="all", description=_TRAIN_ON)
    preference: Preference = Field(default="chosen", description=_PREFERENCE)
    source_column: Annotated[str, Field(max_length=1000), Storable] | None = Field(
        default=None,
        description="Column that says where a row comes from, for the statistics by source; left out, the first of "
        "`source`, `dataset` and `domain` that there is.",
    )
    max_rejected_fraction: float = Field(
        default=0.05, ge=0, le=1, description="The job fails if more of the rows than this can't be used."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(given is not None for given in (self.uri, self.uris, self.id)) != 1:
            raise ValueError("give the data by uri or uris, or choose a registered dataset by id: one of the three")
        return self


def _not_half(value: object) -> object:
    if value == "float16":
        raise ValueError(
            "gradients underflow in float16 without loss scaling: use bfloat16, which has the same size and the "
            "range of float32, or float32"
        )
    return value


class ModelRef(Request):
    """The proxy model that scores the data."""

    uri: Text = Field(
        description="A saved model (config, tokenizer, safetensors weights): `file:///directory`, "
        "`s3://bucket/prefix`, or `hf://org/name@commit` on the hub; or a GGUF file by `file://` or `s3://`."
    )
    dtype: Annotated[Literal["float32", "bfloat16"], BeforeValidator(_not_half)] = "float32"
    max_length: int = Field(default=512, ge=2, le=131_072, description="Tokens of a row; longer rows are cut.")
    devices: Literal["one", "all"] = Field(
        default="one",
        description="`all`: the blocks are spread over all GPUs of a worker, for a model larger than one of them.",
    )
    chat_template: Name | None = Field(
        default=None,
        description="Which of the tokenizer's chat templates, where it has several; left out: `default`, and "
        "`tool_use` for rows with tools.",
    )


class AdapterRef(Request):
    """A LoRA adapter that PEFT saved."""

    uri: Text = Field(
        description="`file://` directory with adapter_config.json and adapter_model.safetensors, of plain LoRA on "
        "linear layers."
    )


LayerName = Annotated[str, Field(min_length=1, max_length=200), Storable]


class Gradients(Request):
    """Whose gradients, and how small they are made."""

    target: Literal["lora", "linear", "last_layer"] = Field(
        default="lora",
        description="`lora`: an adapter on the linear layers of the blocks; `linear`: these layers' own weights; "
        "`last_layer`: the output head's.",
    )
    rank: int = Field(default=8, ge=1, le=256, description="Rank of a fresh adapter.")
    layers: tuple[LayerName, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Which linear layers, by the last parts of their names (`q_proj`, `layers.3.mlp.down_proj`) or by "
        "patterns with `*`, `?` and `[...]` (`layers.1?.mlp.*`); left out: all of them.",
    )
    adapter: AdapterRef | None = Field(
        default=None, description="A trained adapter to take the gradients of; left out: a fresh one."
    )
    warmup_steps: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Steps, of 8 rows each, that a fresh adapter is trained for before rows are scored.",
    )
    warmup_learning_rate: FiniteFloat = Field(default=2e-4, gt=0, le=1, description="Of Adam, in these steps.")
    preconditioner: Literal["none", "adam"] = Field(
        default="none",
        description="`adam`: divide every entry of a gradient by the root of its second moment, as Adam does.",
    )
    sketch_dim: int = Field(default=2048, ge=1, le=65_536, description="Length p of a gradient sketch.")
    seed: int = Field(default=0, ge=0, lt=2**63)
    loss_normalization: Literal["sum", "mean"] = Field(
        default="sum", description="Loss of a row: summed over its response tokens, or their mean."
    )
    prompt_effect: bool = Field(
        default=True,
        description="Also take each response's loss without its prompt, by one forward pass over the responses alone: "
        "`ifd`, the loss with the prompt over the loss without it, tells rows whose prompt does not help.",
    )
    store: Literal["float32", "float16"] = Field(
        default="float32",
        description="Precision of the sketches on disk. `float16` takes half the space; each sketch has a scale of its "
        "own, so that three digits stay whatever its length.",
    )

    @model_validator(mode="before")
    @classmethod
    def _normalize_has_moved(cls, given: object) -> object:
        if isinstance(given, dict) and "normalize" in given:
            raise ValueError("normalize is a setting of the selection: send it as selection.normalize")
        return given

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.target == "last_layer" and self.layers is not None:
            raise ValueError(
                "layers chooses among the blocks' linear layers, and target 'last_layer' is the output head"
            )
        if self.target != "lora" and self.adapter is not None:
            raise ValueError(f"adapter belongs to target 'lora', and the target is {self.target!r}")
        if self.target != "lora" and self.warmup_steps:
            raise ValueError(f"warmup_steps trains an adapter: use target 'lora' instead of {self.target!r}")
        if self.adapter is not None and self.warmup_steps:
            raise ValueError("warmup_steps trains a fresh adapter: leave it out, or leave adapter out")
        return self


def fewest_rows(share: float, picks: int) -> int:
    """A least share of some picks as rows; what is whole but for rounding is whole."""
    return ceil(round(share * picks, 6))


class Budget(Request):
    """How much to pick: a fraction of the usable rows, a count of rows, or as many rows as some tokens buy."""

    fraction: FiniteFloat | None = Field(default=None, gt=0, le=1)
    count: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(
        default=None,
        ge=1,
        lt=2**53,
        description="Tokens that training on the picks reads once, most: those of the rows as the model gets them.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(given is not None for given in (self.fraction, self.count, self.tokens)) != 1:
            raise ValueError("must have either fraction (over 0, at most 1), count (at least 1) or tokens (at least 1)")
        return self


class Clip(Request):
    """How long a gradient may be, as a quantile of the pool's lengths."""

    clip: FiniteFloat = Field(gt=0, le=1, description="Longer gradients are shortened to this quantile of the lengths.")


def _normalize_by_name(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """One message for all that it may be; pydantic's own has one for each member of the union."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError("must be 'none', 'clip', 'unit', or {'clip': q} with a quantile q over 0, at most 1") from None


Normalize = Annotated[Literal["none", "clip", "unit"] | Clip, WrapValidator(_normalize_by_name)]

Diagnostic = Literal["loss", "norm", "cosine", "ifd"]
DIAGNOSTICS: tuple[Diagnostic, ...] = get_args(Diagnostic)


class Bounds(Request):
    """Which rows stay, by a figure of theirs: those within all that is given, the bounds included."""

    min: FiniteFloat | None = None
    max: FiniteFloat | None = None
    min_quantile: FiniteFloat | None = Field(default=None, ge=0, le=1, description="Of the usable rows' figures.")
    max_quantile: FiniteFloat | None = Field(default=None, ge=0, le=1, description="Likewise.")

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("must have min, max, min_quantile or max_quantile")
        for low, high in (("min", "max"), ("min_quantile", "max_quantile")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ValueError(f"{low} {least:g} is above {high} {most:g}, so that no row would stay")
        return self


class Filters(Request):
    """Which rows may be picked, by the figures of each row; a row must be within the bounds of all."""

    loss: Bounds | None = Field(default=None, description="Mean loss of a response token, in nats.")
    norm: Bounds | None = Field(default=None, description="Length of the row's gradient, by its sketch.")
    cosine: Bounds | None = Field(default=None, description="Cosine of its sketch with the mean of all, -1 to 1.")
    ifd: Bounds | None = Field(
        default=None,
        description="Loss with the prompt over the loss without it; 1 and more where the prompt does not help.",
    )


EVERY_OTHER = "*"
"""Stands for each source that `constraints.sources` does not name."""
SourceName = Annotated[str, Field(min_length=1, max_length=100), Storable]
ColumnName = Annotated[str, Field(min_length=1, max_length=1000), Storable]
MOST_ROWS_NAMED = 1_000_000


class Share(Request):
    """How much of the picks may come from a source, as shares of them."""

    min: FiniteFloat | None = Field(default=None, ge=0, le=1, description="Of k picks at least min k, rounded up.")
    max: FiniteFloat | None = Field(default=None, ge=0, le=1, description="Of k picks at most max k, rounded down.")

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("must have min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}, so that nothing would do")
        return self


class RowsByColumn(Request):
    """The rows that a column of the dataset marks."""

    column: ColumnName = Field(
        description="A row is meant where the value is true, 1, or one of the words true, yes and 1; it is not where "
        "it is false, 0, null, empty, or one of the words false, no and 0. Any other value fails the job."
    )


def _rows_or_column(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """One message for both; pydantic's own would tell of each row."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(
            f"must be row numbers from 0, each once and {MOST_ROWS_NAMED:,} at most, or {{'column': name}} with the "
            "name of a column that marks the rows"
        ) from None


def _each_once(rows: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(rows)) != len(rows):
        raise ValueError("names a row twice")
    return rows


RowNumbers = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=0, lt=2**53)], ...],
    Field(max_length=MOST_ROWS_NAMED),
    AfterValidator(_each_once),
]
Rows = Annotated[RowNumbers | RowsByColumn, WrapValidator(_rows_or_column)]


class NearDuplicates(Request):
    """Which rows are too much alike for both to be picked."""

    cosine: FiniteFloat | None = Field(
        default=None,
        gt=0,
        le=1,
        description="No row is picked whose gradient sketch has this cosine or more with that of a pick.",
    )
    text: bool = Field(
        default=False,
        description="Of rows whose texts differ in case, white space or Unicode form alone, one may be picked: one "
        "that `include` names, else the first.",
    )

    @model_validator(mode="after")
    def _tells_something(self) -> Self:
        if self.cosine is None and not self.text:
            raise ValueError("must have cosine (over 0, at most 1), or text true, or both")
        return self


class Decontaminate(Request):
    """An evaluation set that the picks must not share text with."""

    dataset: DatasetRef = Field(
        description="Any rows: the texts of all columns count, or of those that its `columns` names."
    )
    ngram: int = Field(
        default=13, ge=2, le=100, description="A row is dropped that has so many words in a row with it in common."
    )


class Constraints(Request):
    """What the picks have to keep to, all of it at once."""

    sources: dict[SourceName, Share] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Shares of the picks by source, as `dataset.source_column` tells it; `*` is each source that is "
        'not named: `{"code": {"min": 0.2, "max": 0.4}, "*": {"max": 0.3}}`. Rows of no source are one source, `*`.',
    )
    include: Rows | None = Field(
        default=None,
        description="Rows that are picked first, in this order, whatever they gain: row numbers, or the column that "
        "marks them. Filters do not drop them.",
    )
    exclude: Rows | None = Field(default=None, description="Rows that are never picked, likewise.")
    near_duplicates: NearDuplicates | None = None
    decontaminate: Decontaminate | None = Field(
        default=None, description="Rows that share text with an evaluation set are dropped, counted and named."
    )

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        least = sum(share.min or 0.0 for share in (self.sources or {}).values())
        if least > 1 + 1e-9:
            raise ValueError(
                f"sources: the min of all sources are {least:g} together, and all picks are 1: lower some of them"
            )
        other = (self.sources or {}).get(EVERY_OTHER)
        if other is not None and other.min is not None:
            raise ValueError("sources: '*' stands for sources without a name and can have a max alone: name those")
        if isinstance(self.include, tuple) and isinstance(self.exclude, tuple):
            both = set(self.include) & set(self.exclude)
            if both:
                raise ValueError(f"row {min(both)} is in include and in exclude: leave it in one of them")
        return self


class Purpose(Request):
    """Rows that stand for something that the model is to learn, or to keep: a small dataset of its own."""

    dataset: DatasetRef = Field(
        description="10,000 rows at most, read and sketched by the same model with the job's own settings."
    )
    price: FiniteFloat = Field(
        default=0.1,
        ge=0,
        le=100,
        description="Nats that a pick's score loses where its gradient is the opposite of the mean direction of these "
        "rows; in proportion to the negative cosine, so that a row that does not pull against them loses nothing.",
    )
    group_column: ColumnName | None = Field(
        default=None, description="Column of that dataset by which its rows are told of in groups, each by itself."
    )


class Target(Purpose):
    """What the picks are for."""

    weight: FiniteFloat = Field(
        default=0.8,
        ge=0,
        le=1,
        description="w: how much more information counts in the directions that the target's gradients span; 0: all "
        "directions alike, 1: those alone.",
    )


MOST_SETTINGS = 64


class Sweep(Request):
    """Settings to select with as well, each value of one with each of the others; method `spice`."""

    conflict_penalty: tuple[Annotated[FiniteFloat, Field(ge=0, le=100)], ...] | None = Field(
        default=None, min_length=1, max_length=16
    )
    early_stop_ratio: tuple[Annotated[FiniteFloat, Field(gt=0, le=1)] | None, ...] | None = Field(
        default=None, min_length=1, max_length=16, description="null in it: no early stop."
    )
    alpha: tuple[Alpha, ...] | None = Field(default=None, min_length=1, max_length=16)
    normalize: tuple[Normalize, ...] | None = Field(default=None, min_length=1, max_length=16)

    @model_validator(mode="after")
    def _some_and_not_too_many(self) -> Self:
        lists = self.model_dump(exclude_none=True)
        if not lists:
            raise ValueError("must have conflict_penalty, early_stop_ratio, alpha or normalize, each a list")
        for name, values in lists.items():
            if any(one in values[:place] for place, one in enumerate(values)):
                raise ValueError(f"{name} names a value twice")
        count = prod(len(values) for values in lists.values())
        if count > MOST_SETTINGS:
            raise ValueError(f"has {count} combinations, more than {MOST_SETTINGS}: leave some values out")
        return self


class Stability(Request):
    """How often to select again, to tell how sure each pick is."""

    sketches: int = Field(default=5, ge=0, le=50, description="From other random projections of the gradients.")
    bootstrap: int = Field(default=20, ge=0, le=200, description="From rows drawn with replacement: 63% of them each.")

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if self.sketches + self.bootstrap == 0:
            raise ValueError("sketches and bootstrap are 0: leave stability out, or ask for 1 or more")
        return self


class SelectionSpec(Request):
    """How to pick."""

    method: Method = "spice"
    budget: Budget
    alpha: Alpha = Field(default="auto", description="Scale of the information; `auto` is 1 / median squared norm.")
    conflict_penalty: FiniteFloat = Field(default=0.1, ge=0, le=100, description="lambda; 0.1 to 0.5 is stable.")
    normalize: Normalize = Field(
        default="unit",
        description="How long a gradient may be when it is selected from: `none` leaves it, `clip` shortens what is "
        'longer than the median to it, `{"clip": q}` likewise at another quantile, `unit` scales every gradient to '
        "length one, so that only its direction counts.",
    )
    filters: Filters | None = Field(
        default=None,
        description="Rows that may not be picked, by their figures. Left out or null: the default filter against rows "
        "that look wrong. `{}`: none.",
    )
    early_stop_ratio: FiniteFloat | None = Field(
        default=None, gt=0, le=1, description="omega: stop when a gain falls to this part of the first."
    )
    constraints: Constraints | None = Field(default=None, description="What the picks have to keep to.")
    target: Target | None = Field(default=None, description="Rows of what the picks are for.")
    protect: Purpose | None = Field(default=None, description="Rows of what training on the picks must not lose.")
    sweep: Sweep | None = Field(
        default=None,
        description="Select with other settings too, on the same sketches: how much the answer depends on them.",
    )
    stability: Stability | None = Field(default=None, description="Tell how sure each pick is.")
    partitions: int | None = Field(
        default=None,
        ge=2,
        le=1000,
        description="Select in that many random parts, each by whichever worker is free, and merge their picks; null "
        "is the exact greedy in one process.",
    )
    curvature: bool = Field(
        default=False,
        description="Also compute the curvature of the information and the factor that it proves beforehand. For the "
        "plain greedy: `conflict_penalty` 0 or method `fisher`, without `partitions`. Costs about as much as picking "
        "every row.",
    )
    perplexity: Literal["mid", "top"] = Field(
        default="mid",
        description="What method `perplexity` takes: `mid` draws from the middle third of the rows by loss, `top` "
        "is the largest losses.",
    )
    seed: int = Field(default=0, ge=0, lt=2**63)
    baselines: tuple[Method, ...] = Field(
        default=(),
        max_length=len(get_args(Method)) - 1,
        description="Other methods to run on the same rows, for comparison.",
    )
    baseline_repeats: int = Field(
        default=3,
        ge=1,
        le=20,
        description="Runs, each with a seed of its own, of a baseline that draws at random: its curve is then their "
        "mean, with a standard deviation.",
    )

    @model_validator(mode="after")
    def _gains_to_stop_at(self) -> Self:
        if self.early_stop_ratio is not None and self.method not in CLIMBING_METHODS:
            raise ValueError(
                f"early_stop_ratio compares marginal gains, and method {self.method!r} does not pick by them"
            )
        return self

    @model_validator(mode="after")
    def _target_to_compare_with(self) -> Self:
        wanted = [method for method in (self.method, *self.baselines) if method in TARGETED_METHODS]
        if wanted and self.target is None:
            raise ValueError(
                f"{wanted[0]} compares rows with those of a target: send selection.target, or leave {wanted[0]} out"
            )
        return self

    @model_validator(mode="after")
    def _parts_of_a_greedy(self) -> Self:
        if self.partitions is not None and self.method not in ("spice", "fisher"):
            raise ValueError(f"partitions are for methods spice and fisher, not {self.method!r}: leave it out")
        return self

    @model_validator(mode="after")
    def _curvature_of_the_plain_greedy(self) -> Self:
        plain = self.method == "fisher" or (self.method == "spice" and self.conflict_penalty == 0)
        if self.curvature and not plain:
            raise ValueError("curvature is of the plain greedy: use method 'fisher' or conflict_penalty 0")
        if self.curvature and self.partitions is not None:
            raise ValueError("curvature proves its factor for one greedy over all rows: leave it or partitions out")
        return self

    @model_validator(mode="after")
    def _sweep_of_the_greedy(self) -> Self:
        if self.sweep is not None and self.method != "spice":
            raise ValueError(
                f"sweep is over the settings of method 'spice', and method is {self.method!r}: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _stability_of_a_selector(self) -> Self:
        if self.stability is not None and self.method in ORDERED_METHODS:
            raise ValueError(
                f"stability selects again from other sketches and pools, and method {self.method!r} does not pick by "
                "sketches: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _room_for_what_must_be_in(self) -> Self:
        limits, count = self.constraints, self.budget.count
        if limits is None or count is None:
            return self
        if isinstance(limits.include, tuple) and len(limits.include) > count:
            raise ValueError(
                f"constraints.include names {len(limits.include)} rows, more than budget.count {count}: name fewer, or "
                "ask for more"
            )
        least = {name: fewest_rows(share.min, count) for name, share in (limits.sources or {}).items() if share.min}
        if sum(least.values()) > count:
            raise ValueError(
                f"constraints.sources: the min of all sources are {sum(least.values())} rows "
                f"({', '.join(f'{name} {rows}' for name, rows in least.items())}), more than budget.count {count}: "
                "lower some of them, or ask for more"
            )
        return self

    @model_validator(mode="after")
    def _baselines_differ(self) -> Self:
        names = [*self.baselines, self.method]
        if len(set(names)) != len(names):
            raise ValueError("baselines must name methods other than `method`, each once")
        return self


class Limits(Request):
    """How much may be computed for a job; its gradients stop at most one shard later."""

    gradient_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens whose gradients are computed for this job. Which shards are left out is drawn at random, "
        "by `gradients.seed`.",
    )
    seconds: FiniteFloat | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="Seconds from the job's start after which no further shard is begun, in the order of the rows.",
    )
    on_limit: Literal["stop", "select"] = Field(
        default="stop",
        description="`stop`: the job fails as `limit-reached`. `select`: it selects from the rows that are scored, and "
        "its result says so. What was computed is kept either way, for later jobs over the same rows.",
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.gradient_tokens is None and self.seconds is None:
            raise ValueError("must have gradient_tokens or seconds")
        return self


class Webhook(Request):
    """Who is told when the job ends."""

    url: Text = Field(
        description="`https://` on a public host. It gets a POST that is signed as Standard Webhooks has it, and again "
        "until it answers with 2xx."
    )


class JobRequest(Request):
    """A selection job."""

    dataset: DatasetRef
    train_on: TrainOn | None = Field(default=None, description="Short for `dataset.train_on`.")
    preference: Preference | None = Field(default=None, description="Short for `dataset.preference`.")
    model: ModelRef
    gradients: Gradients = Gradients()
    selection: SelectionSpec
    timeout_s: FiniteFloat | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="Seconds that the job may take from its start; then it fails as `timed-out`.",
    )
    limits: Limits | None = None
    priority: Priority = Field(
        default="normal",
        description="Which of the project's jobs workers take first. Projects take turns, whatever the priority.",
    )
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)
    expires_at: Expiry | None = Field(
        default=None,
        description="When the job, its results, rows and events are deleted, if it has ended by then; null: by the "
        "service's setting, else never.",
    )
    webhook: Webhook | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_the_dataset(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was sent
        """What is short for a field of the dataset goes there."""
        if not isinstance(given, dict) or not isinstance(given.get("dataset"), dict):
            return given
        given, dataset = dict(given), dict(given["dataset"])
        for name in ("train_on", "preference"):
            value = given.pop(name, None)
            if value is not None and dataset.setdefault(name, value) != value:
                raise ValueError(f"{name} and dataset.{name} must not differ: give one of them")
        return {**given, "dataset": dataset}

    @model_validator(mode="after")
    def _limited_selection_in_one(self) -> Self:
        selects = self.limits is not None and self.limits.on_limit == "select"
        if selects and self.selection.partitions is not None:
            raise ValueError("limits.on_limit 'select' selects in one process: leave selection.partitions out")
        return self

    @model_validator(mode="after")
    def _prompt_effect_of_ifd(self) -> Self:
        selection = self.selection
        needs = {
            "selection.filters.ifd": selection.filters is not None and selection.filters.ifd is not None,
            "selection.method ifd": selection.method == "ifd",
            "selection.baselines with ifd": "ifd" in selection.baselines,
        }
        for name, needed in needs.items():
            if needed and not self.gradients.prompt_effect:
                raise ValueError(f"{name} needs gradients.prompt_effect: set it to true, or leave ifd out")
        return self


class PreviewRequest(Request):
    """Which rows of a registered dataset to show, as which model would read them."""

    model: ModelRef
    columns: Columns | None = Field(default=None, description="As for `POST /jobs`.")
    train_on: TrainOn = Field(default="all", description=_TRAIN_ON)
    preference: Preference = Field(default="chosen", description=_PREFERENCE)
    first_row: int = Field(default=0, ge=0, lt=2**53, description="Number of the first row, from 0.")
    rows: int = Field(default=20, ge=1, le=50, description="How many rows.")
