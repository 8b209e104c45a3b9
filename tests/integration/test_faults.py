"""Killed workers, a wiped queue, cancels and shutdowns: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from sqlalchemy import select

from app.db.tables import Job, Shard, State
from tests.integration.conftest import environment, real_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.dependencies import Resources
    from tests.integration.conftest import Service

ROWS = 400
SHARD_ROWS = 16  # as in the service's settings
DEADLINE_S = 60


class Workers:
    """Worker processes, started as in production."""

    def __init__(self, service: Service) -> None:
        self._environment = {**os.environ, **environment(service.settings), "OMP_NUM_THREADS": "1"}
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-m", "workers.main"], env=self._environment)
        self._running.append(process)
        return process

    def stop(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


@pytest.fixture
def workers(service: Service) -> Iterator[Workers]:
    workers = Workers(service)
    yield workers
    workers.stop()


@pytest.fixture
def long_body(service: Service) -> dict[str, Any]:
    """A job that takes some seconds: many rows, small shards."""
    rows = (real_rows() * (ROWS // 60 + 1))[:ROWS]
    body = service.request(
        service.write_dataset([{**row, "prompt": f"{i}: {row['prompt']}"} for i, row in enumerate(rows)])
    )
    body["gradients"]["sketch_dim"] = 512
    return body


def wait_for(service: Service, job_id: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        job = service.job(job_id)
        if done(job):
            return job
        time.sleep(0.05)
    raise AssertionError(f"still {job['state']}, {job['stage']}, {job['progress']}")


def final(job: dict[str, Any]) -> bool:
    return job["state"] in {"succeeded", "failed", "cancelled"}


def in_gradients(job: dict[str, Any]) -> bool:
    assert not final(job), "the job was too quick to be disturbed"
    return job["stage"] == "gradients" and job["progress"]["done"] > 2 * SHARD_ROWS


def test_a_killed_worker_loses_at_most_a_shard(service: Service, workers: Workers, long_body: dict[str, Any]) -> None:
    first = workers.start()
    job_id = service.submit(long_body)
    wait_for(service, job_id, in_gradients)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = {path: path.stat().st_mtime_ns for path in service.settings.artifacts_path.glob("sketches/*/shard-*")}
    assert kept
    workers.start()
    job = wait_for(service, job_id, final)
    assert job["state"] == "succeeded", job["error"]
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    assert job["result"]["selected"] == ROWS // 5


def test_a_wiped_queue_loses_no_job(service: Service, workers: Workers) -> None:
    ids = [service.submit(service.request()) for _ in range(3)]
    with Redis.from_url(str(service.settings.redis_url)) as redis:
        redis.flushall()
    workers.start()
    for job_id in ids:
        assert wait_for(service, job_id, final)["state"] == "succeeded"


def test_a_running_job_is_cancelled_within_seconds(
    service: Service, workers: Workers, long_body: dict[str, Any]
) -> None:
    workers.start()
    job_id = service.submit(long_body)
    wait_for(service, job_id, in_gradients)
    asked = time.monotonic()
    assert service.http.post(f"/jobs/{job_id}/cancel").json()["cancel_requested"]
    assert wait_for(service, job_id, final)["state"] == "cancelled"
    assert time.monotonic() - asked < 5
    assert not list((service.settings.artifacts_path / "jobs").glob("*"))


def test_a_worker_that_is_asked_to_end_hands_its_job_back(
    service: Service, workers: Workers, long_body: dict[str, Any]
) -> None:
    first = workers.start()
    job_id = service.submit(long_body)
    wait_for(service, job_id, in_gradients)
    first.terminate()
    assert first.wait(timeout=10) == 0
    assert service.job(job_id)["workers"] == []
    with service.http.app.state.resources.sessions() as session:  # type: ignore[attr-defined]
        assert session.scalars(select(Shard.crashes)).all() == [0] * len(session.scalars(select(Shard.id)).all())
        assert not session.scalars(select(Shard.id).where(Shard.state == State.RUNNING)).all()
    workers.start()
    assert wait_for(service, job_id, final)["state"] == "succeeded"


def test_a_message_that_comes_twice_is_done_once(service: Service) -> None:
    job_id = service.run(service.request())["id"]
    finished = service.job(job_id)["finished_at"]
    assert finished is not None
    from workers.pipeline import run_job  # noqa: PLC0415 - its process is made by the service fixture's settings

    for dispatch in (1, 2):
        run_job(job_id, dispatch)
    service.work()
    assert service.job(job_id)["finished_at"] == finished


def test_a_message_that_names_other_code_is_not_run(service: Service) -> None:
    from rq import Queue  # noqa: PLC0415
    from rq.serializers import JSONSerializer  # noqa: PLC0415

    from app.queue import queue_name  # noqa: PLC0415

    target = service.directory / "made-by-the-message"
    with Redis.from_url(str(service.settings.redis_url)) as redis:
        queue = Queue(queue_name(service.settings, "selection"), connection=redis, serializer=JSONSerializer)
        queue.enqueue("os.mkdir", args=(str(target),))
        service.work()
    assert not target.exists()


def test_a_submission_while_redis_is_away_is_kept(service: Service, workers: Workers) -> None:
    from app.queue import TaskQueue  # noqa: PLC0415

    resources: Resources = service.http.app.state.resources  # type: ignore[attr-defined]
    nowhere = service.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    service.http.app.state.resources = replace(resources, queue=TaskQueue(nowhere))  # type: ignore[attr-defined]
    job_id = service.submit(service.request())
    ready = service.http.get("/readyz")
    assert ready.status_code == 503
    assert "redis" in ready.json()["detail"]
    service.http.app.state.resources = resources  # type: ignore[attr-defined]
    workers.start()
    assert wait_for(service, job_id, final)["state"] == "succeeded"


def test_a_damaged_shard_is_made_again(service: Service) -> None:
    first = service.run(service.request())
    shard = next(iter(service.settings.artifacts_path.glob("sketches/*/shard-00001.safetensors")))
    content = bytearray(shard.read_bytes())
    content[-5] ^= 0xFF
    shard.write_bytes(content)
    second = service.run(service.request())
    assert not second["result"]["sketches_reused"]
    assert shard.read_bytes() != bytes(content)
    subsets = [service.http.get(f"/jobs/{job['id']}/subset").json()["indices"] for job in (first, second)]
    assert subsets[0] == subsets[1]


def test_nothing_but_the_result_is_left_of_a_job(service: Service) -> None:
    job = service.run(service.request())
    with service.http.app.state.resources.sessions() as session:  # type: ignore[attr-defined]
        row = session.get_one(Job, job["id"])
        assert (row.lease_token, row.lease_expires_at) == (None, None)
    with Redis.from_url(str(service.settings.redis_url)) as redis:
        assert redis.keys("rq:job:*") == []


def test_two_workers_share_the_shards_of_a_job(service: Service, workers: Workers, long_body: dict[str, Any]) -> None:
    job_id = service.submit(long_body)
    workers.start()
    workers.start()
    names: set[str] = set()

    def seen_both(job: dict[str, Any]) -> bool:
        names.update(worker["worker"] for worker in job["workers"])
        return final(job)

    assert wait_for(service, job_id, seen_both)["state"] == "succeeded"
    assert len(names) == 2


def test_a_shard_that_cannot_be_done_fails_the_job_and_frees_the_others(
    service: Service, workers: Workers, long_body: dict[str, Any]
) -> None:
    workers.start()
    job_id = service.submit(long_body)
    wait_for(service, job_id, in_gradients)
    for cached in service.settings.cache_path.glob("datasets/*"):
        cached.unlink()
    with service.http.app.state.resources.sessions() as session:  # type: ignore[attr-defined]
        shard = session.scalars(select(Shard).where(Shard.job_id == job_id, Shard.state == State.QUEUED)).first()
        shard.state, shard.error = State.FAILED, {"type": "made-up", "title": "Made up", "detail": "for the test"}
        session.commit()
    job = wait_for(service, job_id, final)
    assert (job["state"], job["error"]["type"]) == ("failed", "made-up")
    with service.http.app.state.resources.sessions() as session:  # type: ignore[attr-defined]
        assert not session.scalars(select(Shard)).all()
