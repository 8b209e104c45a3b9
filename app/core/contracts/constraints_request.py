"""What the picks have to keep to: sources, rows that must or must not be picked, duplicates, evaluation sets."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    Field,
    FiniteFloat,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from app.core.contracts.dataset_request import ColumnName, DatasetRef
from app.core.contracts.schema import Request, Storable

EVERY_OTHER = "*"
"""Stands for each source that `constraints.sources` does not name."""
SourceName = Annotated[str, Field(min_length=1, max_length=100), Storable]
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


def fewest_rows(share: float, picks: int) -> int:
    """A least share of some picks as rows; what is whole but for rounding is whole."""
    return ceil(round(share * picks, 6))
