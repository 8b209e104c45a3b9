"""Postgres, Redis or the API go away in the middle of a job."""

from __future__ import annotations

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest
from redis import Redis
from sqlalchemy import select

from app.core.db.tables import Job
from app.core.lifecycle.leases import Waiting
from app.core.queue import TaskQueue
from tests.integration.processes import SHORT_LEASE_S
from tests.integration.settled import assert_settled, final, in_gradients, wait_for

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from app.local import EmbeddedServers
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes

MANY = 60
"""Submissions before the API is told to end."""


def test_an_api_that_is_killed_between_commit_and_enqueue(service: Service, workers: Processes) -> None:
    dies, url = workers.api(("die_before_enqueueing",))
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/jobs", json=service.request(), trust_env=False, timeout=30)
    assert dies.wait() == -signal.SIGKILL
    _, url = workers.api()
    (job,) = httpx.get(f"{url}/jobs", trust_env=False).json()["items"]
    workers.start()
    assert wait_for(service, job["id"], final)["state"] == "succeeded"
    workers.stop()
    assert_settled(service)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_api_that_ends_among_submissions_has_kept_what_it_answered(
    service: Service, workers: Processes, sessions: Sessions, number: signal.Signals
) -> None:
    """Submissions come at once; those that were answered are stored, each with its message."""
    api, url = workers.api()
    body, answered = service.request(), list[UUID]()

    def submit() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client, contextlib.suppress(httpx.TransportError):
            while True:
                answer = client.post(f"{url}/jobs", json=body)
                assert answer.status_code == 202
                answered.append(UUID(answer.json()["id"]))
                if len(answered) == MANY:
                    api.send_signal(number)

    with ThreadPoolExecutor(8) as pool:
        for submitted in [pool.submit(submit) for _ in range(8)]:
            submitted.result()
    api.wait()
    with sessions() as session:
        stored = {job.id: Waiting(Job, job.id, job.dispatch) for job in session.scalars(select(Job))}
    assert len(answered) >= MANY
    assert set(answered) <= set(stored)
    if number == signal.SIGTERM:  # what was begun was ended and told
        assert set(stored) == set(answered)
    queue = TaskQueue(service.settings)
    assert queue.missing([stored[job_id] for job_id in answered]) == []
    queue.close()


def test_redis_is_wiped_in_mid_job(service: Service, workers: Processes, long_body: dict[str, Any]) -> None:
    workers.start()
    job_id = service.submit(long_body)
    wait_for(service, job_id, in_gradients)
    with Redis.from_url(str(service.settings.redis_url)) as redis:
        redis.flushall()
    assert wait_for(service, job_id, final)["state"] == "succeeded"
    workers.stop()
    assert_settled(service)


def test_redis_is_killed_in_mid_job(
    service: Service, workers: Processes, servers: EmbeddedServers, long_body: dict[str, Any]
) -> None:
    workers.start(lease_s=SHORT_LEASE_S)
    job_id = service.submit(long_body)
    wait_for(service, job_id, in_gradients)
    assert servers.valkey.pid is not None
    os.kill(servers.valkey.pid, signal.SIGKILL)
    assert not final(service.job(job_id))
    servers.valkey.start()
    workers.start()  # as a supervisor does: RQ ends a worker that loses Redis in the middle of a message
    assert wait_for(service, job_id, final)["state"] == "succeeded"
    workers.stop()
    assert_settled(service)


def test_postgres_is_restarted_in_mid_job(
    service: Service, workers: Processes, servers: EmbeddedServers, long_body: dict[str, Any]
) -> None:
    workers.start(lease_s=SHORT_LEASE_S)
    job_id = service.submit(long_body)
    wait_for(service, job_id, in_gradients)
    servers.postgres.stop()
    for answer in (service.http.get(f"/jobs/{job_id}"), service.http.post("/jobs", json=long_body)):
        assert (answer.status_code, answer.json()["type"]) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    servers.postgres.start()
    assert wait_for(service, job_id, final)["state"] == "succeeded"
    workers.stop()
    assert_settled(service)
