"""What a job leaves in the store serves the next within seconds; what it held in memory is free once cancelled."""

from __future__ import annotations

import gc
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from workers.runtime.context import WorkerContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Service

SECONDS = 5.0


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"conflict_penalty": 0.5},
        {"budget": {"count": 7}},
        {"method": "fisher"},
        {"alpha": 0.5, "early_stop_ratio": 0.2},
        {"partitions": 2},
    ],
    ids=["the-same", "lambda", "budget", "method", "alpha-and-omega", "partitions"],
)
def test_a_second_job_that_only_selects_otherwise_takes_seconds(shared_service: Service, other: dict[str, Any]) -> None:
    first = shared_service.run(shared_service.request())
    began = time.process_time()  # the worker runs in this process, and others may keep the machine busy
    second = shared_service.run(shared_service.request(**other))
    assert time.process_time() - began < SECONDS
    assert second["state"] == "succeeded", second["error"]
    assert second["result"]["sketches_reused"]
    assert second["result"]["sketches"] == first["result"]["sketches"]
    assert "gradients" not in second["result"]["seconds"]


def test_a_cancel_frees_what_the_selection_held(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.stages import job_selecting  # noqa: PLC0415 - its process is made by the service fixture's settings

    select = job_selecting.select
    held: list[weakref.ref[Any]] = []

    def cancelled(values: Any, *arguments: Any, should_stop: Callable[[], bool], **options: Any) -> Any:
        held.append(weakref.ref(values))
        service.http.post(f"/jobs/{job_id}/cancel")
        while not should_stop():
            time.sleep(0.05)
        return select(values, *arguments, should_stop=should_stop, **options)

    monkeypatch.setattr(job_selecting, "select", cancelled)
    freed: list[int] = []
    monkeypatch.setattr(WorkerContext, "free_memory", lambda _context: freed.append(len(held)))
    job_id = service.submit(service.request())
    service.work()
    assert service.job(job_id)["state"] == "cancelled"
    gc.collect()
    assert [sketches() for sketches in held] == [None]
    assert freed[-1] == 1, "a GPU's memory is given back after a selection too"
