"""What the worker that plans a proof tells those that run it and the one that compares the runs."""

from __future__ import annotations

from pydantic import Field

from app.core.contracts.schema import Response


class PlannedArm(Response):
    """An arm, as it was planned.

    Attributes:
        name: Its name.
        steps: Of each of its runs.
        drawn: Whether each seed has rows of its own.
        selects: Whether a selection was needed to choose its rows.
        left_out: Rows of a given list that it may not train on, by reason.
    """

    name: str
    steps: int
    drawn: bool
    selects: bool
    left_out: dict[str, int] = Field(default_factory=dict)


class PlannedSubset(Response):
    """A subset of the premise: its run's arm, F(S) in nats, the share of its rows that are the selection's."""

    arm: str
    log_det: float
    selected_share: float


class ProofPlan(Response):
    """A proof that waits for its runs.

    Attributes:
        corpus: Digest of the pool's samples.
        model: Revision of the model.
        fingerprint: Of the pool's file.
        arms: In the order of the request.
        baseline: The arm of the untrained model, if it is trained for the premise alone.
        premise: The subsets.
        selection_s: Seconds that selecting took, that of the job included.
        held_out: Rows that are scored.
        candidates: Rows that arms are chosen from.
        duplicates: Rows dropped as their text is held out.
        sources: Sources of the held-out rows that are drawn as wholes; None for single rows.
        not_scored: Held-out rows that a metric can't be told of.
    """

    corpus: str
    model: str
    fingerprint: str
    arms: list[PlannedArm]
    baseline: str | None
    premise: list[PlannedSubset]
    selection_s: float
    held_out: int
    candidates: int
    duplicates: int
    sources: int | None
    not_scored: dict[str, int]
