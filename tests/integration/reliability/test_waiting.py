"""How long a job waits behind others on one worker, counted in the shards of the others that are done meanwhile."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from app.access import projects
from app.core.db.tables import Job, Shard, Stage, State
from tests.integration.deadlines import soon
from tests.integration.settled import final, wait_for

if TYPE_CHECKING:
    from datetime import datetime

    from app.core.db.engine import Sessions
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes


def wait_until_its_shards_end(sessions: Sessions, job_id: str) -> None:
    """Until the first of a job's shards is done, whosever job it is."""
    deadline = time.monotonic() + soon(60)
    while time.monotonic() < deadline:
        with sessions() as session:
            ended = select(func.count()).where(Shard.job_id == uuid.UUID(job_id), Shard.state == State.SUCCEEDED)
            if session.scalars(ended).one():
                return
        time.sleep(0.05)
    raise AssertionError("no shard ended")


def ended_between(sessions: Sessions, job_id: str, begin: datetime, end: datetime | None) -> int:
    """Shards of a job that were done from one moment to another."""
    assert end is not None
    ended = select(func.count()).where(Shard.job_id == uuid.UUID(job_id), Shard.finished_at.between(begin, end))
    with sessions() as session:
        return session.scalars(ended).one()


def read(sessions: Sessions, job_id: str) -> Job:
    with sessions() as session:
        return session.get_one(Job, uuid.UUID(job_id))


def test_another_projects_job_waits_for_one_shard_at_most_before_each_of_its_own_turns(
    service: Service, workers: Processes, sessions: Sessions, long_body: dict[str, Any]
) -> None:
    large = service.submit(long_body)
    with sessions() as session:
        session.get_one(Job, uuid.UUID(large)).project_id = projects.create(session, "other").id
        session.commit()
    workers.start()
    wait_until_its_shards_end(sessions, large)
    body = service.request()
    small = service.submit({**body, "gradients": {**body["gradients"], "seed": 1}})
    job = wait_for(service, small, final)
    assert job["state"] == "succeeded", job["error"]
    waited = read(sessions, small)
    assert read(sessions, large).stage == Stage.GRADIENTS, "it had so many shards left that they could come before"
    assert ended_between(sessions, large, waited.created_at, waited.started_at) <= 1
    turns = 2 + -(-job["result"]["rows_usable"] // service.settings.shard_rows)  # reading, its shards, selecting
    assert ended_between(sessions, large, waited.created_at, waited.finished_at) <= turns


def test_a_job_of_high_priority_waits_for_the_shard_at_hand_and_no_other(
    service: Service, workers: Processes, sessions: Sessions, long_body: dict[str, Any]
) -> None:
    large = service.submit(long_body)
    workers.start()
    wait_until_its_shards_end(sessions, large)
    body = service.request()
    urgent = service.submit({**body, "gradients": {**body["gradients"], "seed": 1}, "priority": "high"})
    job = wait_for(service, urgent, final)
    assert job["state"] == "succeeded", job["error"]
    waited = read(sessions, urgent)
    assert read(sessions, large).stage == Stage.GRADIENTS, "it had so many shards left that they could come before"
    assert ended_between(sessions, large, waited.created_at, waited.finished_at) <= 1
