"""Bodies that the job endpoints answer with."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from app.core.contracts.dataset_request import DatasetRef
from app.core.contracts.estimate import EstimatedSeconds, EstimateProblem
from app.core.contracts.job_request import EXAMPLE_REQUEST, Limits, Priority
from app.core.contracts.job_result import JobResult
from app.core.contracts.model_request import Gradients, ModelRef
from app.core.contracts.presets import Preset
from app.core.contracts.schedule import Schedule
from app.core.contracts.schema import Metadata, Page, Progress, Response
from app.core.contracts.selection_request import SelectionSpec
from app.core.db.tables import Stage, State
from app.http.problems import ProblemDetails


class Links(Response):
    """Where the rest is."""

    self: str
    events: str
    subset: str | None
    curve: str | None
    conflicts: str | None
    rejected: str | None
    suspects: str | None
    scores: str | None
    league: str | None


class Worker(Response):
    """What one worker does for a job right now."""

    worker: str = Field(description="Host and process.")
    shard: int = Field(description="Number of its shard, or of its part of a partitioned selection.")
    done: int
    total: int
    rate: float | None = Field(description="Samples, or picks, a second.")
    tokens_per_s: float | None = None


class WebhookDelivery(Response):
    """What came of the message that is sent when the job ends."""

    url: str
    state: Literal["waiting", "pending", "delivered", "failed"] = Field(
        description="waiting: the job has not ended. pending: it is tried (again). failed: it was given up."
    )
    attempts: int
    status: int | None = Field(description="HTTP status of the last answer.")
    error: str | None = Field(description="What was wrong with the last attempt.")
    next_attempt_at: datetime | None


class JobResponse(Response):
    """A job."""

    id: uuid.UUID
    name: str | None
    metadata: Metadata
    state: State
    stage: Stage | None
    progress: Progress | None
    workers: list[Worker] = Field(description="Who has a shard or a part of it right now; only in `GET /jobs/{id}`.")
    cancel_requested: bool
    dataset: DatasetRef
    model: ModelRef
    gradients: Gradients
    selection: SelectionSpec
    preset: Preset | None = None
    schedule: Schedule | None = None
    extends: uuid.UUID | None = None
    priority: Priority = "normal"
    limits: Limits | None = None
    timeout_s: float | None = None
    error: ProblemDetails | None
    result: JobResult | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime = Field(description="When anything of this was last changed.")
    expires_at: datetime | None = Field(description="When it is deleted, if it has ended by then; null: never.")
    webhook: WebhookDelivery | None
    links: Links


EXAMPLE_JOB: dict[str, Any] = {
    "id": "7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a1",
    "name": "nightly",
    "metadata": {"team": "search"},
    "state": "running",
    "stage": "gradients",
    "progress": {
        "done": 41984,
        "total": 100000,
        "unit": "samples",
        "rate": 212.4,
        "eta_s": 273.2,
        "tokens_per_s": 23576.4,
    },
    "workers": [{"worker": "gpu-1:41", "shard": 41, "done": 0, "total": 1024, "rate": None, "tokens_per_s": None}],
    "cancel_requested": False,
    "dataset": {"uri": "file:///data/train.jsonl", "columns": {"prompt": "instruction", "response": "output"}},
    "model": EXAMPLE_REQUEST["model"],
    "gradients": EXAMPLE_REQUEST["gradients"],
    "selection": EXAMPLE_REQUEST["selection"],
    "error": None,
    "result": None,
    "created_at": "2026-11-24T03:00:00Z",
    "started_at": "2026-11-24T03:00:01Z",
    "finished_at": None,
    "updated_at": "2026-11-24T03:03:19Z",
    "expires_at": None,
    "webhook": None,
    "links": {
        "self": "/jobs/7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a1",
        "events": "/jobs/7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a1/events",
        "subset": None,
        "curve": None,
        "conflicts": None,
        "rejected": None,
        "suspects": None,
        "scores": None,
        "league": None,
    },
}


class JobsPage(Page[JobResponse]):
    """A page of jobs, newest first."""

    total: int | None = Field(default=None, description="Jobs in all for which the filters hold, if asked for.")


class EstimateResponse(Response):
    """What a job would take. While `state` is queued or running, nothing else is there."""

    id: uuid.UUID
    state: State
    rows: int | None = Field(default=None, description="Rows of the dataset, usable or not.")
    rows_rejected: int | None = Field(default=None, description="Of these, how many can't be used, by the sample.")
    rows_sampled: int | None = Field(default=None, description="Rows that were turned into tokens: all, or a sample.")
    tokens: int | None = Field(default=None, description="Tokens of the usable rows.")
    gradient_rows: int | None = Field(default=None, description="Rows whose gradients are still to be computed.")
    gradient_tokens: int | None = Field(default=None, description="Their tokens.")
    rows_overlapping: int | None = Field(
        default=None,
        description="Usable rows that share text with the set of `selection.constraints.decontaminate` and are not "
        "picked, by the sample. Left out without such a set.",
    )
    selected: int | None = Field(default=None, description="Rows that would be picked, at most.")
    seconds: EstimatedSeconds | None = Field(
        default=None, description="On a service that has nothing else to do, in all and by stage."
    )
    bytes: int | None = Field(default=None, description="What the job adds to the artifact store.")
    memory_bytes: int | None = Field(default=None, description="Memory that a worker needs for it.")
    device: str | None = Field(default=None, description="What computes the gradients.")
    workers: int | None = Field(default=None, description="Workers that share the job's shards.")
    basis: Literal["earlier jobs", "probe"] | None = Field(
        default=None,
        description="What the time of the gradients is estimated from: earlier jobs of the same model and device, or "
        "rows that were computed for it, within 20 s.",
    )
    problems: list[EstimateProblem] | None = Field(
        default=None, description="What the job may fail by, as far as a sample tells; empty where nothing is known."
    )


EXAMPLE_ESTIMATE: dict[str, Any] = {
    "id": "5a2f6f0e-7f0b-4c7d-9d5e-0a4b7e9c1d21",
    "state": "succeeded",
    "rows": 320,
    "rows_rejected": 0,
    "rows_sampled": 320,
    "tokens": 33219,
    "gradient_rows": 320,
    "gradient_tokens": 33219,
    "selected": 32,
    "seconds": {
        "low": 111.863,
        "likely": 167.712,
        "high": 251.49,
        "stages": {
            "reading": {"low": 0.0, "likely": 0.0, "high": 0.0},
            "gradients": {"low": 111.618, "likely": 167.427, "high": 251.14},
            "selecting": {"low": 0.014, "likely": 0.031, "high": 0.069},
            "publishing": {"low": 0.232, "likely": 0.255, "high": 0.281},
        },
    },
    "bytes": 2658753,
    "memory_bytes": 1382729216,
    "device": "cpu: Intel(R) Xeon(R) Processor, 2 threads",
    "workers": 1,
    "basis": "probe",
    "problems": [],
}
