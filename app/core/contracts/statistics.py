"""The statistics of a finished job, as publishing writes them and reports draw them."""

from __future__ import annotations

import uuid
from typing import Literal

from pydantic import Field

from app.core.contracts.schedule import ScheduleCurve
from app.core.contracts.schema import Response
from app.core.contracts.selection_request import Clip


class SetConflict(Response):
    """The rows of one set against the set's own mean."""

    rows: int
    counts: list[int] = Field(description="Rows by cosine with the mean; one fewer than edges.")
    mean_conflict: float = Field(description="Mean of max(0, -cosine).")
    conflicting_share: float = Field(description="Share of rows with a cosine below 0.")


class ConflictBeforeAfter(Response):
    """Cosine of each row's gradient sketch with the mean of the set that it is in; conflict is its negative part.

    Before the selection: `all` candidates, and as many of them at `random` as were picked, with the selection's seed.
    After: those `picked`. A row has a larger part in the mean of a smaller set, so `random` is the one to compare
    with.
    """

    edges: list[float] = Field(description="Of the bins, the same for all sets; 0 is one of them.")
    sets: dict[str, SetConflict]


class LengthsOf(Response):
    """Lengths of some rows, in tokens."""

    counts: list[int]
    mean: float
    median: float


class Lengths(Response):
    """Tokens of the picked rows against those of all that could be picked."""

    edges: list[int]
    all: LengthsOf
    picked: LengthsOf


class SourceCounts(Response):
    """Rows of one source."""

    value: str
    all: int
    picked: int


class OtherSources(Response):
    """Rows of all further sources, and of none."""

    all: int
    picked: int


class Sources(Response):
    """Picked rows by source against all that could be picked: the 20 largest sources by name."""

    column: str
    values: list[SourceCounts]
    other: OtherSources | None


class EpsilonConflict(Response):
    """Epsilon (nats) and conflict of picks, thinned evenly by rank to at most 2,000."""

    rank: list[int]
    conflict: list[float]
    epsilon: list[float]


class EarlyStop(Response):
    """Where the gains fall to `ratio` times the first; of a job that sets no ratio, where 0.5 would have stopped."""

    ratio: float
    requested: bool = Field(description="Whether the job asked for it.")
    threshold: float = Field(description="In nats.")
    kept: int | None = Field(description="Picks before that point; null if the gains stay above.")


class SweepCurve(Response):
    """The curve of one combination of a sweep, at 60 points at most."""

    conflict_penalty: float
    early_stop_ratio: float | None
    alpha: float
    normalize: Literal["none", "clip", "unit"] | Clip
    selected: int
    certificate: float
    shared: float
    rank: list[int] = Field(description="Number of picks, from 1.")
    log_det: list[float] = Field(description="Log-det of that many picks, in nats, at this alpha and these lengths.")


class Statistics(Response):
    """What the figures of a job are drawn from, besides its curve."""

    job_id: uuid.UUID
    conflict_before_after: ConflictBeforeAfter
    lengths: Lengths
    sources: Sources | None = Field(description="Null if the dataset has no column that says.")
    epsilon_conflict: EpsilonConflict
    early_stop: EarlyStop | None = Field(
        description="Null for methods that do not pick by marginal gains, and with a schedule."
    )
    schedule: ScheduleCurve | None = Field(default=None, description="Null where the request has no schedule.")
    sweep: list[SweepCurve] | None = Field(default=None, description="Null where no sweep was asked for.")
    stability: list[int] | None = Field(
        default=None, description="Picks by the share of reselections that pick them, in ten bins from 0 to 1."
    )
