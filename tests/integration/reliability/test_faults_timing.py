"""Things that happen at once, too late, or by a clock that is wrong."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import select

from app.core.db.tables import Job
from app.core.queue import TASK, queue_name
from tests.integration.conftest import real_rows
from tests.integration.deadlines import soon
from tests.integration.processes import SHORT_LEASE_S
from tests.integration.settled import assert_settled, final, in_gradients, wait_for

if TYPE_CHECKING:
    from app.core.settings import Settings
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes, Running

DAY = 86400


def crashes(service: Service) -> list[int]:
    with service.http.app.state.resources.sessions() as session:  # type: ignore[attr-defined]
        return list(session.scalars(select(Job.crashes)))


def wait_till_frozen(process: Running) -> None:
    deadline = time.monotonic() + 90
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("stage", ["selecting", "publishing"])
def test_a_worker_that_was_taken_for_dead_changes_nothing_when_it_comes_back(
    service: Service, workers: Processes, stage: str
) -> None:
    zombie = workers.start(("at", stage, "freeze"), lease_s=SHORT_LEASE_S)
    job_id = service.submit(service.request())
    wait_till_frozen(zombie)
    workers.start()
    done = wait_for(service, job_id, final)
    assert done["state"] == "succeeded"
    zombie.send_signal(signal.SIGCONT)
    zombie.terminate()
    assert zombie.wait() == 0
    assert service.job(job_id) == done
    workers.stop()
    assert_settled(service)


def test_a_job_whose_message_comes_to_two_workers_is_done_once(service: Service, workers: Processes) -> None:
    job_id = service.submit(service.request())
    with Redis.from_url(str(service.settings.redis_url)) as redis:
        queue = Queue(queue_name(service.settings, "selection"), connection=redis, serializer=JSONSerializer)
        for copy in range(4):
            queue.enqueue(TASK, job_id=f"copy-{copy}", result_ttl=0)
    workers.start()
    workers.start()
    assert wait_for(service, job_id, final)["state"] == "succeeded"
    workers.stop()
    assert crashes(service) == [0]
    assert_settled(service)


@pytest.mark.parametrize("stage", ["taken", "reading", "gradients", "selecting", "publishing"])
def test_a_worker_that_is_asked_to_end_finishes_or_hands_back(service: Service, workers: Processes, stage: str) -> None:
    first = workers.start(("at", stage, "terminate"))
    job_id = service.submit(service.request())
    assert first.wait() == 0
    workers.start()
    assert wait_for(service, job_id, final)["state"] == "succeeded"
    workers.stop()
    assert crashes(service) == [0]
    assert_settled(service)


class TestATimeout:
    def test_ends_a_job_that_selects(self, service: Service, workers: Processes) -> None:
        workers.start(("slow_picks", "0.5"))
        job_id = service.submit({**service.request(budget={"fraction": 1.0}), "timeout_s": 3})
        job = wait_for(service, job_id, final)
        assert (job["state"], job["error"]["type"]) == ("failed", "timed-out")
        assert "3 s" in job["error"]["detail"]
        assert job["error"]["errors"][0]["field"] == "timeout_s"
        workers.stop()
        assert_settled(service, succeeded=0, failed="timed-out")

    def test_ends_a_job_whose_shards_are_computed_and_frees_their_workers(
        self, service: Service, workers: Processes, long_body: dict[str, Any]
    ) -> None:
        workers.start(("slow_shards", "0.5"))
        job_id = service.submit({**long_body, "timeout_s": 2})
        assert wait_for(service, job_id, final)["error"]["type"] == "timed-out"
        next_one = service.submit(service.request())
        assert wait_for(service, next_one, final)["state"] == "succeeded"
        workers.stop()
        assert_settled(service, succeeded=1, failed="timed-out")

    class TestOfTheDeployment:
        @pytest.fixture
        def service_settings(self, service_settings: Settings) -> Settings:
            return service_settings.model_copy(update={"job_timeout_s": 50.0})

        def test_can_be_lowered_by_a_job_but_not_raised(self, service: Service) -> None:
            ids = [
                service.submit({**service.request(), **given}) for given in ({}, {"timeout_s": 7}, {"timeout_s": 99})
            ]
            with service.http.app.state.resources.sessions() as session:  # type: ignore[attr-defined]
                assert [session.get_one(Job, job_id).timeout_s for job_id in ids] == [50, 7, 50]


class TestACancel:
    @pytest.mark.parametrize("stage", ["reading", "gradients", "selecting", "publishing"])
    def test_ends_a_job_within_seconds_though_its_worker_is_deaf(
        self, service: Service, workers: Processes, stage: str
    ) -> None:
        bell = service.directory / "bell"
        workers.start(("deaf", stage, str(bell)))
        job_id = service.submit(service.request())
        wait_for(service, job_id, lambda job: job["stage"] == stage)
        asked = time.monotonic()
        service.http.post(f"/jobs/{job_id}/cancel")
        assert wait_for(service, job_id, final)["state"] == "cancelled"
        assert time.monotonic() - asked < soon(5)
        bell.touch()
        workers.stop()
        assert_settled(service, succeeded=0)

    def test_that_races_with_the_end_leaves_a_whole_result_or_none(self, service: Service, workers: Processes) -> None:
        workers.start()
        first = service.submit(service.request())
        assert wait_for(service, first, final)["state"] == "succeeded"
        moments = random.Random(0)  # noqa: S311 - no secret
        states = []
        for _ in range(12):
            job_id = service.submit(service.request())
            time.sleep(moments.uniform(0, 0.4))
            service.http.post(f"/jobs/{job_id}/cancel")
            states.append(wait_for(service, job_id, final)["state"])
        assert set(states) <= {"succeeded", "cancelled"}
        workers.stop()
        assert_settled(service, succeeded=1 + states.count("succeeded"))


def test_hosts_whose_clocks_are_days_apart_share_a_job(
    service: Service, workers: Processes, long_body: dict[str, Any]
) -> None:
    began = time.monotonic()
    workers.start(("clock_off_by", str(DAY)))
    workers.start(("clock_off_by", str(-DAY)))
    job = wait_for(service, service.submit(long_body), final)
    assert job["state"] == "succeeded", job["error"]
    assert all(0 <= seconds <= time.monotonic() - began for seconds in job["result"]["seconds"].values())
    workers.stop()
    assert crashes(service) == [0]
    assert_settled(service)


def test_a_dataset_that_changes_under_a_running_job_fails_it(
    service: Service, workers: Processes, long_body: dict[str, Any]
) -> None:
    """The worker that goes on is on another machine, which has no copy of what the job began with."""
    first = workers.start(lease_s=SHORT_LEASE_S)
    job_id = service.submit(long_body)
    wait_for(service, job_id, in_gradients)
    service.write_dataset(real_rows())
    first.kill()
    workers.start(cache_dir=service.directory / "another-machine")
    job = wait_for(service, job_id, final)
    assert (job["state"], job["error"]["type"]) == ("failed", "dataset-changed")
    assert "submit again" in job["error"]["detail"]
    workers.stop()
    assert_settled(service, succeeded=0, failed="dataset-changed")
