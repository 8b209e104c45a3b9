"""What the figures of a job are drawn from."""

from __future__ import annotations

import uuid
from typing import Any, Literal

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
            "marks": [
                {
                    "x": 982.0,
                    "y": 31.5,
                    "text": "10,000 picks by spice: 4213 nats",
                    "rows": {"first_rank": "10000", "last_rank": "10000"},
                }
            ],
            "pointing": "both",
            "folded": None,
        }
    ],
}


class TableResponse(Response):
    """Numbers as text, few enough to read."""

    columns: list[str]
    rows: list[list[str]]


class MarkResponse(Response):
    """A place of a drawing that has something to say."""

    x: float = Field(description="In pixels from the left of the drawing.")
    y: float = Field(description="In pixels from its top.")
    text: str = Field(description="Its values in words.")
    rows: dict[str, str] = Field(
        description="Parameters of `GET /jobs/{id}/rows` for the picks behind it; empty if no picks are."
    )


class FigureResponse(Response):
    """A figure with its words and the numbers behind it."""

    name: str
    title: str
    caption: str = Field(description="What can be read off it.")
    svg: str = Field(description="One `<svg>` element without a style of its own.")
    table: TableResponse
    marks: list[MarkResponse] = Field(description="What a pointer is told, where it points.")
    pointing: Literal["x", "y", "both"] = Field(
        description="By which distance a pointer finds its mark: along one axis, or in the plane."
    )
    folded: str | None = Field(description="Why it has nothing to show and is folded away; null where it has.")


class Figures(Response):
    """What a page shows of a result."""

    job_id: uuid.UUID
    summary: list[str] = Field(description="The result and its certificate in plain words, by paragraph.")
    figures: list[FigureResponse]
