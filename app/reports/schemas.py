"""What the figures of a job are drawn from."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import Field

from app.core.contracts.schema import Response
from app.results.schemas import JOB_ID

EXAMPLE_STATISTICS: dict[str, Any] = {
    "job_id": JOB_ID,
    "conflict_before_after": {
        "edges": [-0.4, 0.0, 0.4],
        "sets": {
            "all": {"rows": 100, "counts": [31, 69], "mean_conflict": 0.04, "conflicting_share": 0.31},
            "random": {"rows": 10, "counts": [3, 7], "mean_conflict": 0.03, "conflicting_share": 0.3},
            "picked": {"rows": 10, "counts": [1, 9], "mean_conflict": 0.01, "conflicting_share": 0.1},
        },
    },
    "lengths": {
        "edges": [0, 256, 512],
        "all": {"counts": [70, 30], "mean": 180.2, "median": 171.0},
        "picked": {"counts": [4, 6], "mean": 290.1, "median": 301.0},
    },
    "sources": {"column": "source", "values": [{"value": "gsm8k", "all": 60, "picked": 7}], "other": None},
    "epsilon_conflict": {"rank": [1, 2], "conflict": [0.0, 0.01], "epsilon": [0.0, -0.02]},
    "early_stop": {"ratio": 0.5, "requested": False, "threshold": 0.91, "kept": 7},
}
EXAMPLE_FIGURES: dict[str, Any] = {
    "job_id": JOB_ID,
    "summary": ["10,000 of 100,000 usable rows are picked. Together they hold 4,213 nats of information."],
    "figures": [
        {
            "name": "curve",
            "title": "Information",
            "caption": "10,000 picks by spice hold 4,213 nats.",
            "svg": "<svg ...>",
            "table": {"columns": ["Picks", "spice, nats"], "rows": [["10,000", "4213"]]},
        }
    ],
}


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


class Statistics(Response):
    """What the figures of a job are drawn from, besides its curve."""

    job_id: uuid.UUID
    conflict_before_after: ConflictBeforeAfter
    lengths: Lengths
    sources: Sources | None = Field(description="Null if the dataset has no column that says.")
    epsilon_conflict: EpsilonConflict
    early_stop: EarlyStop | None = Field(description="Null for methods that do not pick by marginal gains.")


class TableResponse(Response):
    """Numbers as text, few enough to read."""

    columns: list[str]
    rows: list[list[str]]


class FigureResponse(Response):
    """A figure with its words and the numbers behind it."""

    name: str
    title: str
    caption: str = Field(description="What can be read off it.")
    svg: str = Field(description="One `<svg>` element without a style of its own.")
    table: TableResponse


class Figures(Response):
    """What a page shows of a result."""

    job_id: uuid.UUID
    summary: list[str] = Field(description="The result and its certificate in plain words, by paragraph.")
    figures: list[FigureResponse]
