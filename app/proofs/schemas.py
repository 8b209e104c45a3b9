"""Bodies that the proof endpoints answer with."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from pydantic import Field

from app.core.contracts.proof_request import (
    EXAMPLE_PROOF_REQUEST,
    Arm,
    HeldOut,
    Metric,
    PremiseSpec,
    Training,
)
from app.core.contracts.proof_result import ArmResult, Comparison, Cost, HeldOutRows, Premise
from app.core.contracts.schema import Metadata, Progress, Response
from app.core.db.tables import ProofStage, State
from app.http.problems import ProblemDetails
from app.jobs.schemas import WebhookDelivery


class ProofLinks(Response):
    """Where the rest is."""

    self: str
    job: str | None = Field(description="The selection job that the proof is about; null once that is deleted.")
    events: str
    runs: str
    report: str | None


class ProofSettings(Response):
    """What was asked for."""

    arms: list[Arm]
    against: str
    held_out: HeldOut
    seeds: int
    training: Training
    metrics: list[Metric]
    smallest_effect: dict[str, float]
    premise: PremiseSpec | None


class ProofWorker(Response):
    """What one worker does for a proof right now."""

    worker: str = Field(description="Host and process.")
    arm: str
    seed: int
    done: int = Field(description="Steps of the run.")
    total: int
    tokens_per_s: float | None = None


class ProofResponse(Response):
    """A proof."""

    id: uuid.UUID
    name: str | None
    metadata: Metadata
    state: State
    stage: ProofStage | None
    progress: Progress | None
    workers: list[ProofWorker] = Field(description="Who has a run of it right now; only in `GET /proofs/{id}`.")
    cancel_requested: bool
    job: uuid.UUID | None
    settings: ProofSettings
    error: ProblemDetails | None
    held_out: HeldOutRows | None = Field(description="What was scored on; this and all below once it has succeeded.")
    arms: list[ArmResult]
    comparisons: list[Comparison]
    premise: Premise | None
    cost: Cost | None
    failed_runs: int
    notes: list[str]
    summary: list[str] = Field(description="All of it in sentences, once it has succeeded.")
    versions: dict[str, str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    timeout_s: float | None
    expires_at: datetime | None = Field(description="When it is deleted, if it has ended by then; null: never.")
    webhook: WebhookDelivery | None
    links: ProofLinks


PROOF_ID = "2f6a0d52-6e83-4e0b-9df2-6f4c1c0a7b11"
EXAMPLE_PROOF: dict[str, Any] = {
    "id": PROOF_ID,
    "name": "nightly",
    "metadata": {"team": "search"},
    "state": "running",
    "stage": "training",
    "progress": {"done": 412, "total": 960, "unit": "steps", "rate": 3.1, "eta_s": 176.8},
    "workers": [{"worker": "gpu-1:41", "arm": "random", "seed": 2, "done": 12, "total": 48, "tokens_per_s": 12100.0}],
    "cancel_requested": False,
    "job": EXAMPLE_PROOF_REQUEST["job"],
    "settings": {
        **{name: value for name, value in EXAMPLE_PROOF_REQUEST.items() if name not in ("job", "metrics")},
        "against": "random",
        "metrics": [{"name": "loss"}, {"name": "exact_match", "max_tokens": 32}],
    },
    "error": None,
    "held_out": None,
    "arms": [],
    "comparisons": [],
    "premise": None,
    "cost": None,
    "failed_runs": 0,
    "notes": [],
    "summary": [],
    "versions": {},
    "created_at": "2026-11-24T03:00:00Z",
    "started_at": "2026-11-24T03:00:01Z",
    "finished_at": None,
    "updated_at": "2026-11-24T03:03:19Z",
    "timeout_s": None,
    "expires_at": None,
    "webhook": None,
    "links": {
        "self": f"/proofs/{PROOF_ID}",
        "job": f"/jobs/{EXAMPLE_PROOF_REQUEST['job']}",
        "events": f"/proofs/{PROOF_ID}/events",
        "runs": f"/proofs/{PROOF_ID}/runs",
        "report": None,
    },
}
