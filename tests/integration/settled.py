"""What must be true once everything has ended, whatever went wrong before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from redis import Redis
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from sqlalchemy import func, select

from app.core.db.tables import Dataset, Job, Part, RejectedRows, Selection, SelectionChunk, Shard, State
from app.core.queue import TaskQueue, queue_name
from app.core.settings import QUEUES
from app.core.storage import open_artifacts
from app.housekeeping.expiry import expire
from app.housekeeping.reconciler import reconcile
from app.housekeeping.retention import UNFINISHED_S, sweep
from workers.data.leftovers import remove_leftovers

DEADLINE_S = 120
SHARD_ROWS = 16  # of small shards, as in the settings of such a service
HOUR_S = 3600.0
LISTS_OF_RQ = ("rq:queues", "rq:workers", "rq:failed:")
"""Of queues, workers and failed messages; RQ strikes off who is gone."""

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from tests.integration.conftest import Service


def wait_for(service: Service, job_id: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The job once it is as wanted."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        job = service.job(job_id)
        if done(job):
            return job
        time.sleep(0.05)
    raise AssertionError(f"still {job['state']}, {job['stage']}, {job['progress']}")


def expire_until(service: Service, gone: int) -> None:
    """Expiry's passes, as the service makes them, until this many jobs and proofs are deleted.

    A pass leaves out a row that another transaction holds: the reconciler holds a job for a moment to count it.
    """
    resources = service.http.app.state.resources  # type: ignore[attr-defined]
    deleted, deadline = 0, time.monotonic() + DEADLINE_S
    while deleted < gone and time.monotonic() < deadline:
        deleted += expire(resources.sessions, resources.artifacts, service.settings)
        time.sleep(0.05)
    assert deleted == gone


def final(job: dict[str, Any]) -> bool:
    """Whether nothing follows."""
    return job["state"] in {"succeeded", "failed", "cancelled"}


def in_gradients(job: dict[str, Any]) -> bool:
    """Whether some shards are done and others are not."""
    assert not final(job), "the job was too quick to be disturbed"
    return job["stage"] == "gradients" and job["progress"]["done"] > 2 * SHARD_ROWS


def assert_settled(service: Service, *, succeeded: int | None = None, failed: str | None = None) -> None:
    """Each job has exactly one result or one clear failure, and no row, key or file is left over.

    Call it when the workers have ended. The service's own housekeeping is done first, as an hour or a day would.

    Args:
        service: The service.
        succeeded: How many jobs must have succeeded; None for all of them.
        failed: The problem's type of those that failed.
    """
    settings = service.settings
    sessions: Sessions = service.http.app.state.resources.sessions  # type: ignore[attr-defined]
    with sessions() as session:
        assert all(state.final for state in session.scalars(select(Job.state)))
    service.work()  # what the queue still held stands for nothing any more
    _keep_house(sessions, settings)
    with sessions() as session:
        jobs = list(session.scalars(select(Job)))
        assert jobs
        for job in jobs:
            _assert_one_end(session, job, failed)
        won = [job for job in jobs if job.state is State.SUCCEEDED]
        assert len(won) == (len(jobs) if succeeded is None else succeeded), {job.id: job.state for job in jobs}
        _assert_no_orphan_rows(session)
    _assert_files(settings, {str(job.id) for job in won})
    _assert_keys(settings)


def _keep_house(sessions: Sessions, settings: Settings) -> None:
    queue = TaskQueue(settings)
    reconcile(sessions, queue, settings)
    queue.close()
    with Redis.from_url(str(settings.redis_url)) as redis:
        for kind in QUEUES:
            registry = StartedJobRegistry(queue_name(settings, kind), redis, serializer=JSONSerializer)
            registry.cleanup(time.time() + HOUR_S)  # any worker's own maintenance
    sweep(sessions, open_artifacts(settings), settings, now=time.time() + 2 * UNFINISHED_S)
    remove_leftovers(settings.model_copy(update={"fetch_timeout_s": -1.0}))


def _assert_one_end(session: Session, job: Job, failed: str | None) -> None:
    assert job.state.final, (job.state, job.stage)
    assert (job.lease_token, job.lease_expires_at) == (None, None)
    assert job.finished_at is not None
    heads = session.scalars(select(Selection).where(Selection.job_id == job.id)).all()
    if job.state is State.SUCCEEDED:
        assert (job.error, job.plan) == (None, None)
        (head,) = [head for head in heads if head.label == "main"]
        assert job.result is not None
        assert job.result["selected"] == head.selected == _stored_picks(session, job)
        return
    assert (heads, job.result) == ([], None)
    assert not session.scalars(select(RejectedRows).where(RejectedRows.job_id == job.id)).all()
    if job.state is State.FAILED:
        problem: dict[str, Any] = job.error or {}
        assert problem["type"] == failed, problem
        assert problem["title"]
        assert problem["detail"]


def _stored_picks(session: Session, job: Job) -> int:
    picks = session.scalars(
        select(func.unnest(SelectionChunk.row_indices)).where(
            SelectionChunk.job_id == job.id, SelectionChunk.label == "main"
        )
    ).all()
    assert len(set(picks)) == len(picks)
    return len(picks)


def _assert_no_orphan_rows(session: Session) -> None:
    assert session.scalars(select(Shard)).all() == []
    assert session.scalars(select(Part)).all() == []
    assert session.scalars(select(Dataset.id).where(Dataset.lease_token.is_not(None))).all() == []


def _assert_files(settings: Settings, won: set[str]) -> None:
    """One file of rows for each success, whole sketches, and nothing unfinished anywhere."""
    names = [stored.name for stored in open_artifacts(settings).list("")]
    assert sorted(name.split("/")[1] for name in names if "/rows." in name) == sorted(won)
    assert {name.split("/")[1] for name in names if name.startswith("jobs/")} == won
    assert {name.split("/")[0] for name in names} <= {"jobs", "sketches"}
    assert [name for name in names if name.rpartition("/")[2].startswith(".")] == []
    assert list(settings.cache_path.rglob(".*")) == []
    assert list((settings.cache_path / "rows").glob("*")) == []


def _assert_keys(settings: Settings) -> None:
    """No message waits, and what the queue remembers of dead workers goes away by itself."""
    with Redis.from_url(str(settings.redis_url), decode_responses=True) as redis:
        for kind in QUEUES:
            name = queue_name(settings, kind)
            assert redis.lrange(f"rq:queue:{name}", 0, -1) == []
            assert redis.zrange(f"rq:wip:{name}", 0, -1) == []
        lasting = [key for key in redis.keys("*") if redis.ttl(key) < 0 and not key.startswith(LISTS_OF_RQ)]
    assert lasting == []
