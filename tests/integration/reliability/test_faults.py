"""Killed workers, a wiped queue, cancels and shutdowns: nothing is lost, nothing is done twice."""

from __future__ import annotations

import signal
import socket
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from sqlalchemy import select

from app.core.db.tables import Job, Shard, State
from app.core.lifecycle.leases import Waiting
from app.core.queue import TaskQueue
from tests.integration.conftest import LONG_ROWS
from tests.integration.deadlines import soon
from tests.integration.processes import SHORT_LEASE_S
from tests.integration.settled import assert_settled, final, in_gradients, wait_for

if TYPE_CHECKING:
    from app.http.dependencies import Resources
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes

STALE = 2000
"""Messages of rows that are gone."""


@pytest.mark.parametrize("stage", ["taken", "reading", "gradients", "selecting", "publishing", "published"])
def test_a_worker_that_is_killed_costs_no_job(service: Service, workers: Processes, stage: str) -> None:
    killed = workers.start(("at", stage, "die"), lease_s=SHORT_LEASE_S)
    job_id = service.submit(service.request())
    assert killed.wait() == -signal.SIGKILL
    workers.start()
    job = wait_for(service, job_id, final)
    assert job["state"] == "succeeded", job["error"]
    workers.stop()
    assert_settled(service)


def test_a_killed_worker_loses_at_most_a_shard(service: Service, workers: Processes, long_body: dict[str, Any]) -> None:
    first = workers.start(lease_s=SHORT_LEASE_S)
    job_id = service.submit(long_body)
    wait_for(service, job_id, in_gradients)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = {
        path: path.stat().st_mtime_ns for path in service.settings.artifacts_path.glob("sketches/*/shard-*.safetensors")
    }
    assert kept
    workers.start()
    job = wait_for(service, job_id, final)
    assert job["state"] == "succeeded", job["error"]
    made_again = [path for path, written in kept.items() if path.stat().st_mtime_ns != written]
    assert len(made_again) <= 1, "the one that it had written and not yet reported"
    assert job["result"]["selected"] == LONG_ROWS // 5
    workers.stop()
    assert_settled(service)


def test_a_wiped_queue_loses_no_job(service: Service, workers: Processes) -> None:
    ids = [service.submit(service.request()) for _ in range(3)]
    with Redis.from_url(str(service.settings.redis_url)) as redis:
        redis.flushall()
    workers.start()
    for job_id in ids:
        assert wait_for(service, job_id, final)["state"] == "succeeded"
    workers.stop()
    assert_settled(service)


def test_a_running_job_is_cancelled_within_seconds(
    service: Service, workers: Processes, long_body: dict[str, Any]
) -> None:
    workers.start()
    job_id = service.submit(long_body)
    wait_for(service, job_id, in_gradients)
    asked = time.monotonic()
    assert service.http.post(f"/jobs/{job_id}/cancel").json()["cancel_requested"]
    assert wait_for(service, job_id, final)["state"] == "cancelled"
    assert time.monotonic() - asked < soon(5)
    workers.stop()
    assert_settled(service, succeeded=0)


def test_a_worker_that_is_asked_to_end_hands_its_job_back(
    service: Service, workers: Processes, long_body: dict[str, Any]
) -> None:
    first = workers.start()
    job_id = service.submit(long_body)
    wait_for(service, job_id, in_gradients)
    first.terminate()
    assert first.wait(timeout=soon(10)) == 0
    assert service.job(job_id)["workers"] == []
    with service.http.app.state.resources.sessions() as session:  # type: ignore[attr-defined]
        assert session.scalars(select(Shard.crashes)).all() == [0] * len(session.scalars(select(Shard.id)).all())
        assert not session.scalars(select(Shard.id).where(Shard.state == State.RUNNING)).all()
    workers.start()
    assert wait_for(service, job_id, final)["state"] == "succeeded"
    workers.stop()
    assert_settled(service)


def test_a_message_that_comes_twice_is_done_once(service: Service) -> None:
    job_id = service.run(service.request())["id"]
    finished = service.job(job_id)["finished_at"]
    assert finished is not None
    from workers.stages.job import run_job  # noqa: PLC0415 - its process is made by the service fixture's settings

    for dispatch in (1, 2):
        run_job(job_id, dispatch)
    service.work()
    assert service.job(job_id)["finished_at"] == finished


def test_messages_of_rows_that_are_gone_hold_nobody_up(service: Service, workers: Processes) -> None:
    """A cancelled job may leave tens of thousands. A worker takes any message as a sign to look for the next row."""
    queue = TaskQueue(service.settings)
    queue.put([Waiting(Job, uuid.uuid4(), 1) for _ in range(STALE)])
    job_id = service.submit(service.request())
    workers.start()
    job = wait_for(service, job_id, final)
    assert job["state"] == "succeeded", job["error"]
    assert queue.lengths()["selection"] > STALE / 2, "most of what was put before it is still there"
    queue.close()


def test_a_message_that_another_worker_ends_meanwhile_is_no_failure(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two workers have it where the reconciler puts it again while the first is at other rows."""
    queue, work = TaskQueue(service.settings), Waiting(Job, uuid.uuid4(), 1)
    monkeypatch.setattr("workers.stages.turns.take_turns", lambda: queue.drop(work))
    queue.put([work])
    with Redis.from_url(str(service.settings.redis_url)) as redis:
        service.work()
        left = [key for key in redis.scan_iter() if str(work.id).encode() in key or b"failed" in key]
    queue.close()
    assert left == [], "neither a failure nor half a message that nobody deletes"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_message_that_names_other_code_is_not_run(service: Service) -> None:
    from rq import Queue  # noqa: PLC0415
    from rq.serializers import JSONSerializer  # noqa: PLC0415

    from app.core.queue import queue_name  # noqa: PLC0415

    target = service.directory / "made-by-the-message"
    with Redis.from_url(str(service.settings.redis_url)) as redis:
        queue = Queue(queue_name(service.settings, "selection"), connection=redis, serializer=JSONSerializer)
        queue.enqueue("os.mkdir", args=(str(target),))
        service.work()
    assert not target.exists()


CALLS: list[object] = []


def called(*given: object) -> None:
    """What a message names."""
    CALLS.append(given)


@pytest.mark.parametrize("task", ["workers.stages.turns.take_turns", "os.mkdir"])
def test_what_a_message_names_for_its_end_is_neither_called_nor_sent_to(service: Service, task: str) -> None:
    from rq import Callback, Queue, Webhook  # noqa: PLC0415
    from rq.serializers import JSONSerializer  # noqa: PLC0415

    from app.core.queue import queue_name  # noqa: PLC0415

    CALLS.clear()
    with socket.create_server(("127.0.0.1", 0)) as server, Redis.from_url(str(service.settings.redis_url)) as redis:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        queue = Queue(queue_name(service.settings, "selection"), connection=redis, serializer=JSONSerializer)
        queue.enqueue(
            task,
            on_success=Callback(f"{__name__}.called"),
            on_failure=Callback(f"{__name__}.called"),
            webhooks=[Webhook(url, status, timeout=1) for status in ("finished", "failed")],
        )
        service.work()
        assert CALLS == []
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_submission_while_redis_is_away_is_kept(service: Service, workers: Processes) -> None:
    from app.core.queue import TaskQueue  # noqa: PLC0415
    from app.health.readiness import Probes  # noqa: PLC0415

    state = service.http.app.state  # type: ignore[attr-defined]
    resources: Resources = state.resources
    probes: Probes = state.probes
    nowhere = service.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    queue = TaskQueue(nowhere)
    state.resources = replace(resources, queue=queue)
    state.probes = Probes(resources.sessions, queue, resources.artifacts)
    job_id = service.submit(service.request())
    ready = service.http.get("/readyz")
    assert ready.status_code == 503
    assert "Redis" in ready.json()["detail"]
    state.resources, state.probes = resources, probes
    workers.start()
    assert wait_for(service, job_id, final)["state"] == "succeeded"
    workers.stop()
    assert_settled(service)


def test_a_damaged_shard_is_made_again(service: Service) -> None:
    first = service.run(service.request())
    shard = next(iter(service.settings.artifacts_path.glob("sketches/*/shard-*.safetensors")))
    content = bytearray(shard.read_bytes())
    content[-5] ^= 0xFF
    shard.write_bytes(content)
    second = service.run(service.request())
    assert not second["result"]["sketches_reused"]
    assert shard.read_bytes() != bytes(content)
    subsets = [service.http.get(f"/jobs/{job['id']}/subset").json()["indices"] for job in (first, second)]
    assert subsets[0] == subsets[1]


def test_nothing_but_the_result_is_left_of_a_job(service: Service) -> None:
    service.run(service.request())
    assert_settled(service)
    with Redis.from_url(str(service.settings.redis_url)) as redis:
        assert redis.keys("rq:job:*") == []


def test_two_workers_share_the_shards_of_a_job(service: Service, workers: Processes, long_body: dict[str, Any]) -> None:
    job_id = service.submit(long_body)
    workers.start()
    workers.start()
    names: set[str] = set()

    def seen_both(job: dict[str, Any]) -> bool:
        names.update(worker["worker"] for worker in job["workers"])
        return final(job)

    assert wait_for(service, job_id, seen_both)["state"] == "succeeded"
    assert len(names) == 2
    workers.stop()
    assert_settled(service)


def test_a_shard_that_cannot_be_done_fails_the_job_and_frees_the_others(
    service: Service, workers: Processes, long_body: dict[str, Any]
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
    workers.stop()
    assert_settled(service, succeeded=0, failed="made-up")
