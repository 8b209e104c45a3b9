"""Postgres, Redis or the API go away in the middle of a job."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from tests.integration.processes import SHORT_LEASE_S
from tests.integration.settled import assert_settled, final, in_gradients, wait_for

if TYPE_CHECKING:
    from app.local import EmbeddedServers
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes


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
