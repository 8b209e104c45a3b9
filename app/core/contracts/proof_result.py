"""What a proof found: the contract between the worker that compares the runs and all who show or read it."""

from __future__ import annotations

import enum
from typing import Any

from pydantic import Field

from app.core.contracts.schema import Response

Interval = tuple[float, float]


class Verdict(enum.StrEnum):
    """What a comparison says."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    NOT_ENOUGH_RUNS = "not_enough_runs"


class RunOutcome(Response):
    """What one run gave: also what is found again by the run's content hash."""

    metrics: dict[str, float] = Field(description="Mean over the held-out rows, by metric.")
    rows: int = Field(description="Rows that it trained on.")
    tokens: int = Field(description="Their tokens, once.")
    steps: int
    trained_tokens: int = Field(description="Tokens read in training, over all epochs.")
    train_loss: float | None = Field(description="Of the last step; null for a run that trains nothing.")
    seconds: float = Field(description="Of training and scoring, over all workers that had the run.")
    halvings: int = Field(default=0, description="Times that a step was taken in smaller pieces to fit into memory.")
    resumed_at: int | None = Field(default=None, description="Step that it went on from after a worker was lost.")


class RunResult(Response):
    """A run of an arm."""

    seed: int
    state: str = Field(description="succeeded, failed or cancelled.")
    metrics: dict[str, float]
    seconds: float
    rows: int
    tokens: int
    reused: bool = Field(description="Whether an earlier proof had trained it.")
    adapter: str | None = Field(default=None, description="Where the artifact store keeps its adapter, if asked for.")
    error: dict[str, Any] | None = None


class ArmResult(Response):
    """An arm: what was trained on, and how it scored."""

    name: str
    rows: float = Field(description="Rows trained on, mean over the runs.")
    tokens: float = Field(description="Their tokens, likewise.")
    steps: int = Field(description="Of training.")
    left_out: dict[str, int] = Field(
        description="Rows of a given list, or that a selection has to pick, which no arm may train on, by reason."
    )
    runs: list[RunResult]
    mean: dict[str, float] = Field(description="By metric, over the runs and the held-out rows.")
    interval: dict[str, Interval | None] = Field(description="95%, by metric; null with fewer than two runs.")


class Comparison(Response):
    """An arm against another by one metric, paired by seed and held-out row."""

    arm: str
    against: str
    metric: str
    difference: float | None = Field(description="Arm minus against. Of a loss, below 0 is better.")
    interval: Interval | None = Field(description="95%: two-level bootstrap over seeds and held-out rows.")
    standard_error: float | None
    degrees_of_freedom: float | None
    p_value: float | None = Field(description="Two-sided, after Holm's correction over the metrics.")
    smallest_effect: float
    verdict: Verdict
    runs_needed: int | None = Field(description="Seeds that would decide it, should the figures stay as they are.")
    seeds: int = Field(description="Seeds that both arms have.")


class PremisePoint(Response):
    """A subset that was trained on."""

    log_det: float = Field(description="F(S), in nats.")
    gain: float = Field(description="Held-out loss before training minus after, in nats a token.")
    selected_share: float = Field(description="Share of its rows that are the selection's.")


class Premise(Response):
    """Whether more information trains better."""

    spearman: float | None
    interval: Interval | None
    points: list[PremisePoint]
    failed: int = Field(default=0, description="Runs of subsets that failed.")


class Cost(Response):
    """What the answer cost."""

    selection_s: float = Field(description="Of the job that made the sketches, and of selecting again.")
    training_s: float = Field(description="Of all runs, over all workers; runs found again count as they did.")
    tokens: int = Field(description="Read in training.")
    runs_trained: int
    runs_reused: int
    gain_per_hour: dict[str, float | None] = Field(
        description="By arm: its loss below that of the arm compared with, an hour of selection and one run."
    )


class HeldOutRows(Response):
    """What was scored on."""

    rows: int
    sources: int | None = Field(description="Sources that the bootstrap draws as wholes; null: it draws single rows.")
    candidates: int = Field(description="Rows that arms are chosen from.")
    duplicates_dropped: int = Field(description="Rows dropped as their normalised text is on the other side too.")
    not_scored: dict[str, int] = Field(description="By metric: rows that it can't be told of.")


class ProofResult(Response):
    """The proof."""

    held_out: HeldOutRows
    arms: list[ArmResult]
    comparisons: list[Comparison]
    premise: Premise | None
    cost: Cost
    failed_runs: int
    notes: list[str] = Field(description="What a reader should know: runs that failed, metrics that disagree.")
    versions: dict[str, str]
