"""Turn a job's row into the body that clients get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from app.core.db.tables import Job, State
from app.jobs.schemas import JobResponse, Links

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.core.lifecycle.parking import UnitProgress


def to_response(job: Job, workers: Sequence[UnitProgress] = ()) -> JobResponse:
    """The job as clients see it."""
    url = f"/jobs/{job.id}"
    done = job.state is State.SUCCEEDED
    values = {
        **job.request,
        "id": job.id,
        "name": job.name,
        "metadata": job.metadata_,
        "state": job.state,
        "stage": job.stage,
        "progress": job.progress,
        "workers": workers,
        "cancel_requested": job.cancel_requested_at is not None,
        "error": job.error,
        "result": job.result,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "updated_at": job.updated_at,
        "expires_at": job.expires_at,
        "webhook": _webhook(job),
        "links": Links(
            self=url,
            events=f"{url}/events",
            subset=f"{url}/subset" if done else None,
            curve=f"{url}/curve" if done else None,
            conflicts=f"{url}/conflicts" if done else None,
            rejected=f"{url}/rejected" if done else None,
            suspects=f"{url}/suspects" if done else None,
            scores=f"{url}/scores" if done else None,
            league=f"{url}/league" if done else None,
        ),
    }
    try:
        return JobResponse.model_validate(values, extra="ignore")
    except ValidationError:
        # A newer release has stored a value that this one does not know; what else the job says is told all the same.
        return JobResponse.model_construct(**values)


def _webhook(job: Job) -> dict[str, Any] | None:
    """The state of the job's webhook message, if the job has a webhook."""
    wanted = job.request.get("webhook")
    if wanted is None:
        return None
    waiting = {"state": "waiting", "attempts": 0, "status": None, "error": None}
    return {**wanted, **(job.webhook or waiting), "next_attempt_at": job.webhook_due_at}
