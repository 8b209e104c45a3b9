"""Bodies of the result endpoints."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import Field

from app.core.contracts.job_result import LeagueRow
from app.core.contracts.proof_result import Interval, Verdict
from app.core.contracts.schema import Response

JOB_ID = "7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a1"

EXAMPLE_SUBSET: dict[str, Any] = {
    "job_id": JOB_ID,
    "indices": [812, 40, 7731],
    "marginal_gains": [5.1, 4.8, 4.6],
    "epsilons": [0.0, -0.01, -0.02],
    "conflicts": [0.0, 0.0, 0.03],
    "log_det": [5.1, 9.9, 14.5],
    "stability": [1.0, 0.96, 0.4],
}
EXAMPLE_CHANGES: dict[str, Any] = {
    "job_id": JOB_ID,
    "since": "0b1e4a4f-2c0e-4a55-9f3c-1f6d3b9a2c10",
    "added": [20017, 812],
    "removed": [77],
    "kept": 98,
}
EXAMPLE_CURVE: dict[str, Any] = {
    "job_id": JOB_ID,
    "selected": 3,
    "rank": [1, 2, 3],
    "log_det": [5.1, 9.9, 14.5],
    "marginal_gains": [5.1, 4.8, 4.6],
    "baselines": {
        "random": {"selected": 3, "rank": [1, 2, 3], "log_det": [0.7, 1.3, 2.1], "marginal_gains": [0.7, 0.6, 0.8]}
    },
}
EXAMPLE_STATISTICS: dict[str, Any] = {
    "mean": 0.013,
    "max": 0.21,
    "positive_fraction": 0.31,
    "quantiles": {"0.5": 0.0, "0.9": 0.05, "0.99": 0.17},
    "histogram": {"edges": [0.0, 0.5, 1.0], "counts": [3, 0]},
    "spearman_conflict_gain": -0.41,
    "spearman_conflict_epsilon": 0.38,
}
EXAMPLE_CONFLICTS: dict[str, Any] = {
    "job_id": JOB_ID,
    **EXAMPLE_STATISTICS,
    "baselines": {"fisher": EXAMPLE_STATISTICS},
}


class SubsetChanges(Response):
    """How a job's subset differs from another job's: rows are the same where the model reads the same."""

    job_id: uuid.UUID
    since: uuid.UUID = Field(description="The other job.")
    added: list[int] = Field(description="Picks that the other job does not have, by row number, best first.")
    removed: list[int] = Field(
        description="Picks of the other job that this one does not have, by row number in the other job's dataset."
    )
    kept: int = Field(description="Picks that both have.")


EXAMPLE_LEAGUE: dict[str, Any] = {
    "job_id": JOB_ID,
    "methods": [
        {
            "method": "spice",
            "runs": 1,
            "rows": 32,
            "tokens": 6120,
            "log_det": 22.4,
            "mean_conflict": 0.004,
            "overlap": 1.0,
            "target_covered": 9.3,
            "target_cosine": 0.21,
            "sources": {"code": 0.4, "chat": 0.6},
            "requested": True,
            "verdicts": [
                {
                    "proof_id": JOB_ID,
                    "metric": "loss",
                    "against": "random",
                    "difference": -0.012,
                    "interval": [-0.02, -0.004],
                    "verdict": "better",
                }
            ],
        }
    ],
}


class CurveLine(Response):
    """A log-det curve, thinned evenly to `points`; the last pick is always in it."""

    selected: int
    rank: list[int] = Field(description="Number of picks, from 1.")
    log_det: list[float] = Field(description="Log-det of that many picks, in nats.")
    marginal_gains: list[float] = Field(description="What the pick of that rank added, in nats.")
    runs: int = Field(
        default=1,
        description="Runs that the line is the mean of: `selection.baseline_repeats` for a baseline that draws at "
        "random, which then has at most 1,000 points.",
    )
    log_det_std: list[float] | None = Field(
        default=None, description="Standard deviation of `log_det` over the runs, with n - 1; null for a single run."
    )


class Curve(CurveLine):
    """The curve of a job's selection, with those of its baselines."""

    job_id: uuid.UUID
    baselines: dict[str, CurveLine]


class Histogram(Response):
    """Counts between edges; one edge more than counts."""

    edges: list[float]
    counts: list[int]


class ConflictStatistics(Response):
    """Conflict of each pick with the picks before it, in [0, 1]."""

    mean: float
    max: float
    positive_fraction: float = Field(description="Share of picks in any conflict.")
    quantiles: dict[str, float]
    histogram: Histogram
    spearman_conflict_gain: float | None = Field(description="Rank correlation with the marginal gain.")
    spearman_conflict_epsilon: float | None = Field(description="Rank correlation with |epsilon|.")


class Conflicts(ConflictStatistics):
    """The conflict statistics of a job's selection, with those of its baselines."""

    job_id: uuid.UUID
    baselines: dict[str, ConflictStatistics]


class ProofVerdict(Response):
    """What training on the picks of a method came to in a proof of the job."""

    proof_id: uuid.UUID
    metric: str
    against: str
    difference: float | None = Field(description="The method minus `against`. Of a loss, below 0 is better.")
    interval: Interval | None = Field(description="95%.")
    verdict: Verdict


class LeagueLine(LeagueRow):
    """A method in the league table."""

    requested: bool = Field(description="Whether it is the job's own method, not a baseline.")
    verdicts: list[ProofVerdict] = Field(description="Of the proofs of the job that trained on its picks.")


class League(Response):
    """The methods of a job side by side, that of the largest log-det first."""

    job_id: uuid.UUID
    methods: list[LeagueLine]


class RejectedReason(Response):
    """All rows that could not be used or picked, for one reason."""

    reason: str
    rows: list[int]


class RejectedList(Response):
    """All rows that could not be used."""

    job_id: uuid.UUID
    rejected: list[RejectedReason]
    filtered: list[RejectedReason] = Field(description="Usable rows that a filter dropped, by filter and bound.")
