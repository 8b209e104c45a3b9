"""Jobs over the same data that are queued together compute its gradients once, whoever asked first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.conftest import ROWS
from tests.integration.processes import SHORT_LEASE_S
from tests.integration.settled import final, wait_for

if TYPE_CHECKING:
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes


def test_ten_jobs_and_two_workers_compute_each_gradient_once(service: Service, workers: Processes) -> None:
    body = service.request()
    jobs = [
        service.submit({**body, "selection": {**body["selection"], "method": "random", "seed": seed}})
        for seed in range(10)
    ]
    workers.start()
    workers.start()
    done = [wait_for(service, job_id, final) for job_id in jobs]
    assert [job["state"] for job in done] == ["succeeded"] * 10
    gradients = [job["result"]["gradients"] for job in done]
    assert sum(found["computed"] for found in gradients) == ROWS
    assert all(found["computed"] + found["reused"] == ROWS for found in gradients)
    assert len({job["result"]["sketches"] for job in done}) == 1


def test_a_job_goes_on_by_itself_when_the_one_that_computed_for_both_is_cancelled(
    service: Service, workers: Processes
) -> None:
    body = service.request()
    first, second = service.submit(body), service.submit(body)
    workers.start(("at", "gradients", "die"), lease_s=SHORT_LEASE_S)
    wait_for(service, first, lambda job: job["stage"] == "gradients")
    assert service.http.post(f"/jobs/{first}/cancel").status_code < 300
    workers.start()
    assert wait_for(service, second, final)["state"] == "succeeded"
