"""A worker that is killed, a client that cancels, and others who wait, in the midst of a schedule."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.core.lifecycle import counts
from tests.integration.deadlines import soon
from tests.integration.processes import SHORT_LEASE_S
from tests.integration.settled import assert_settled, final, wait_for

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes


WINDOW_S = "0.05"
"""More for each window: the quickest machine takes seconds for them all, and a rate is told after half a second."""


@pytest.fixture
def body(service: Service, long_body: dict[str, Any]) -> dict[str, Any]:
    """50 windows, and training after every third; what is picked of one depends on the picks of those before."""
    rows = Path(long_body["dataset"]["uri"].removeprefix("file://")).read_text().splitlines()
    sourced = [{**json.loads(row), "source": "ab"[number % 2]} for number, row in enumerate(rows)]
    dataset = {**long_body["dataset"], "uri": service.write_dataset(sourced, "sourced.jsonl")}
    sources = {"a": {"min": 0.55}, "b": {"min": 0.44}}
    selection = {"constraints": {"sources": sources, "include": [7, 300], "exclude": [1, 2]}}
    return {
        **long_body,
        "dataset": dataset,
        "selection": selection,
        "schedule": {"windows": 8, "keep": 2, "train_every": 3, "learning_rate": 0.01},
    }


def some_windows(job: dict[str, Any]) -> bool:
    """Whether it has trained more than once and has not ended."""
    assert not final(job), "the job was too quick to be disturbed"
    progress = job["progress"]
    trained_twice = job["stage"] == "gradients" and progress["unit"] == "windows" and progress["done"] >= 7
    return trained_twice and progress["rate"] is not None


def picks_and_windows(service: Service, job: dict[str, Any]) -> tuple[list[int], dict[str, Any]]:
    subset = service.http.get(job["links"]["subset"]).json()["indices"]
    return subset, service.http.get(f"/jobs/{job['id']}/statistics").json()["schedule"]


def test_a_killed_worker_changes_no_pick(service: Service, workers: Processes, body: dict[str, Any]) -> None:
    first = workers.start(("slow_windows", WINDOW_S), lease_s=SHORT_LEASE_S)
    job_id = service.submit(body)
    told = wait_for(service, job_id, some_windows)["progress"]
    assert told["total"] == 50
    assert told["rate"] > 0
    assert told["eta_s"] > 0
    first.send_signal(signal.SIGKILL)
    first.wait()
    [point] = service.settings.artifacts_path.glob("sketches/*/schedule.safetensors")
    assert not list(service.settings.artifacts_path.glob("sketches/*/outcome.safetensors"))
    workers.start()
    job = wait_for(service, job_id, final)
    assert job["state"] == "succeeded", job["error"]
    workers.stop()
    assert not point.exists(), "a checkpoint is of use until the end alone"
    assert_settled(service)
    undisturbed = service.run({**body, "name": "again", "gradients": {**body["gradients"], "store": "float16"}})
    assert undisturbed["result"]["gradients"]["computed"] == 400, "nothing of the disturbed job is used"
    assert picks_and_windows(service, undisturbed) == picks_and_windows(service, job)


def test_a_schedule_is_cancelled_within_seconds(service: Service, workers: Processes, body: dict[str, Any]) -> None:
    """And the next job that asks for the same goes on where this one was."""
    worker = workers.start(("slow_windows", WINDOW_S))
    job_id = service.submit(body)
    wait_for(service, job_id, some_windows)
    asked = time.monotonic()
    service.http.post(f"/jobs/{job_id}/cancel")
    assert wait_for(service, job_id, final)["state"] == "cancelled"
    assert time.monotonic() - asked < soon(5)
    worker.terminate()
    worker.wait()
    assert time.monotonic() - asked < soon(10), "the worker has let go of it too"
    assert_settled(service, succeeded=0)


def test_a_schedule_lets_others_have_their_turns_and_picks_the_same(
    service: Service, workers: Processes, sessions: Sessions, body: dict[str, Any]
) -> None:
    """On the only worker: its turns end at checkpoints, with as many rows as a shard has scored since the last one."""
    workers.start(("slow_windows", WINDOW_S))
    first = service.submit(body)
    wait_for(service, first, some_windows)
    short = service.request()
    urgent = service.submit({**short, "gradients": {**short["gradients"], "seed": 1}, "priority": "high"})
    done = wait_for(service, urgent, final)
    assert done["state"] == "succeeded", done["error"]
    meanwhile = service.job(first)
    assert (meanwhile["state"], meanwhile["stage"]) == ("running", "gradients")
    assert meanwhile["progress"]["done"] < 50, "all its windows would be done if it had not given way"
    job = wait_for(service, first, final)
    assert job["state"] == "succeeded", job["error"]
    assert job["result"]["gradients"] == {"computed": 400, "reused": 0}
    with sessions() as session:
        tokens = counts.totals(session)[counts.TOKENS, ()]
    assert tokens == job["result"]["tokens"] + done["result"]["tokens"], "of all its turns"
    workers.stop()
    assert_settled(service, succeeded=2)
    undisturbed = service.run({**body, "name": "again", "gradients": {**body["gradients"], "store": "float16"}})
    assert picks_and_windows(service, undisturbed) == picks_and_windows(service, job)
