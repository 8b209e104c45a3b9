"""How rows are picked: method, budget, filters, purposes, and what is told of the picks besides."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from app.core.contracts.constraints_request import Constraints, Decontaminate, fewest_rows
from app.core.contracts.dataset_request import ColumnName, DatasetRef
from app.core.contracts.schema import Request, optional

Fisher = Literal["exact", "reference", "reference_top_k"]
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


class Budget(Request):
    """How much to pick: a fraction of the usable rows, a count of rows, or as many rows as some tokens buy."""

    fraction: FiniteFloat | None = Field(default=None, gt=0, le=1)
    count: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(
        default=None,
        ge=2,
        lt=2**53,
        description="Tokens that training on the picks reads once, most: those of the rows as the model gets them. No "
        "row has fewer than two: one that is learned, and one before it.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(given is not None for given in (self.fraction, self.count, self.tokens)) != 1:
            raise ValueError("must have either fraction (over 0, at most 1), count (at least 1) or tokens (at least 2)")
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

Diagnostic = Literal["loss", "norm", "cosine", "ifd", "end_loss"]
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
    end_loss: Bounds | None = Field(
        default=None,
        description="Loss of the token that ends the response, in nats: large where the response breaks off.",
    )


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


_OF_THE_EXACT_SCORE = (
    *("representative", "constraints", "target", "protect"),
    *("sweep", "stability", "partitions", "curvature"),
)
REPRESENTATIVE = 0.1
"""Weight of the candidates' own directions where a request names none: docs/dirty.md and docs/proof.md say why."""


class SelectionSpec(Request):
    """How to pick."""

    model_config = ConfigDict(json_schema_extra=optional("budget"))

    method: Method = "spice"
    budget: Budget = Field(description="May be left out with a `schedule`, which says how many are picked.")
    fisher: Fisher = Field(
        default="exact",
        description="For methods `spice` and `fisher`: `reference` picks by the diagonal score of the code that the "
        "paper's authors published, `reference_top_k` takes the largest of these scores at once, as that code does "
        "by default. Both are there to reproduce index lists.",
    )
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
    representative: FiniteFloat | None = Field(
        default=None,
        ge=0,
        le=1,
        description="How much more information counts in the directions that the candidates' own gradients span; 0: "
        "all directions alike. Left out or null: 0.1, or 0 where `normalize` is `none`, as lengths drown it there. A "
        "target takes its place.",
    )
    early_stop_ratio: FiniteFloat | None = Field(
        default=None,
        gt=0,
        le=1,
        description="omega: stop when a gain falls to this part of the first. Set `representative` to 0 with it: under "
        "the default's metric 0.5 may end the selection after its first pick.",
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

    @property
    def own_weight(self) -> float:
        """How much more information counts in the candidates' own directions: `representative`, or its default."""
        if self.target is not None or self.fisher != "exact":
            return 0.0
        if self.representative is None:
            return 0.0 if self.normalize == "none" else REPRESENTATIVE
        return self.representative

    @property
    def evaluation_set(self) -> Decontaminate | None:
        """What no pick may share text with; None where that does not matter."""
        return None if self.constraints is None else self.constraints.decontaminate

    @model_validator(mode="after")
    def _gains_to_stop_at(self) -> Self:
        if self.early_stop_ratio is not None and self.method not in CLIMBING_METHODS:
            raise ValueError(
                f"early_stop_ratio compares marginal gains, and method {self.method!r} does not pick by them"
            )
        return self

    @model_validator(mode="after")
    def _published_score_alone(self) -> Self:
        if self.fisher == "exact":
            return self
        if self.method not in ("spice", "fisher"):
            raise ValueError(f"fisher {self.fisher!r} is a score of methods spice and fisher, not of {self.method!r}")
        beside = [name for name in _OF_THE_EXACT_SCORE if getattr(self, name)]
        if beside:
            raise ValueError(
                f"fisher {self.fisher!r} picks by the published score, which knows no {beside[0]}: leave it out, or "
                "use fisher 'exact'"
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
    def _baselines_differ(self) -> Self:
        names = [*self.baselines, self.method]
        if len(set(names)) != len(names):
            raise ValueError("baselines must name methods other than `method`, each once")
        return self

    def check_room(self) -> None:
        """Refuse more rows that have to be picked than the budget counts; where none is kept from an earlier job.

        Raises:
            ValueError: So many are named, or a share of each source comes to so many.
        """
        limits, count = self.constraints, self.budget.count
        if limits is None or count is None:
            return
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
