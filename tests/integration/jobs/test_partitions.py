"""A selection in random parts over the same workers: leased, fenced and resumed as shards are."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import select

from app.core.db.tables import Part, State
from tests.integration.conftest import ROWS
from tests.integration.processes import SHORT_LEASE_S
from tests.integration.settled import assert_settled, final, wait_for

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes

pytestmark = pytest.mark.small_shards

PARTS = 3


def parted(service: Service, **selection: Any) -> dict[str, Any]:
    return service.request(partitions=PARTS, **selection)


def subset(service: Service, job: dict[str, Any]) -> dict[str, Any]:
    return dict(service.http.get(job["links"]["subset"]).json())


def test_the_parts_come_close_to_the_whole(service: Service) -> None:
    exact, job = service.run(service.request()), service.run(parted(service))
    assert job["state"] == "succeeded", job["error"]
    result = job["result"]
    assert (result["partitions"], exact["result"]["partitions"]) == (PARTS, None)
    assert result["sketches_reused"]
    assert result["selected"] == ROWS // 5
    assert result["log_det"] >= 0.95 * exact["result"]["log_det"]
    assert result["log_det"] <= exact["result"]["certificate"]["optimum_upper_bound"]
    assert 0 < result["certificate"]["value"] <= 1
    guarantee = result["partitions_guarantee"]
    assert guarantee["factor"] == pytest.approx((1 - (1 - 1 / 12) ** 12) / 2)
    assert guarantee["loss"] == pytest.approx(2 * guarantee["factor"] * 12 * 0.1)
    assert result["certificate"]["additive_bound"] is None
    assert set(result["seconds"]) == {"reading", "selecting", "publishing"}
    picks = subset(service, job)
    assert len(set(picks["indices"])) == ROWS // 5
    assert np.isclose(sum(picks["marginal_gains"]), result["log_det"], rtol=1e-9)
    again = service.run(parted(service))
    assert subset(service, again)["indices"] == picks["indices"]
    assert_settled(service)


def test_a_part_that_its_worker_dies_in_is_the_only_one_lost(
    service: Service, workers: Processes, sessions: Sessions
) -> None:
    killed = workers.start(("at", "part", "die"), lease_s=SHORT_LEASE_S)
    job_id = service.submit(parted(service))
    assert killed.wait() == -signal.SIGKILL
    with sessions() as session:
        states = session.scalars(select(Part.state).where(Part.job_id == job_id).order_by(Part.number)).all()
        kept = session.scalars(select(Part.finished_at).where(Part.state == State.SUCCEEDED)).all()
    assert sorted(states) == [State.QUEUED, State.RUNNING, State.SUCCEEDED]
    # When all parts are done, and before they are merged.
    holder = workers.start(("at", "selecting", "freeze"), lease_s=SHORT_LEASE_S)
    wait_for(service, job_id, lambda _: _all_done(sessions, job_id))
    with sessions() as session:
        parts = session.scalars(select(Part).where(Part.job_id == job_id)).all()
        assert set(kept) < {part.finished_at for part in parts}
        assert sorted(part.crashes for part in parts) == [0, 0, 1]
    holder.kill()
    workers.start()
    assert wait_for(service, job_id, final)["state"] == "succeeded"
    workers.stop()
    assert_settled(service)


def _all_done(sessions: Sessions, job_id: str) -> bool:
    with sessions() as session:
        states = session.scalars(select(Part.state).where(Part.job_id == job_id)).all()
    return len(states) == PARTS and set(states) == {State.SUCCEEDED}


def test_a_shard_that_is_damaged_under_the_parts_is_made_again(service: Service, workers: Processes) -> None:
    exact = service.run(service.request())
    workers.start(("damages_a_shard_before_the_parts",))
    job = wait_for(service, service.submit(parted(service)), final)
    assert job["state"] == "succeeded", job["error"]
    workers.stop()
    again = service.run(parted(service))
    assert subset(service, again)["indices"] == subset(service, job)["indices"]
    assert again["result"]["sketches"] == exact["result"]["sketches"]
    assert_settled(service)


def test_a_cancel_ends_all_parts(service: Service, workers: Processes, sessions: Sessions) -> None:
    workers.start(("slow_parts", "0.5"))
    job_id = service.submit(parted(service))

    def part_runs(_: dict[str, Any]) -> bool:
        with sessions() as session:
            return bool(session.scalars(select(Part.id).where(Part.state == State.RUNNING)).all())

    wait_for(service, job_id, part_runs)
    assert service.http.post(f"/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    workers.stop()
    assert_settled(service, succeeded=0)


def test_parts_are_refused_where_they_mean_nothing(service: Service) -> None:
    for selection in ({"method": "random"}, {"method": "dpp"}):
        answer = service.http.post("/jobs", json=parted(service, **selection))
        assert answer.status_code == 422
        assert "partitions" in answer.json()["detail"]
    body = service.request(partitions=1)
    assert service.http.post("/jobs", json=body).json()["errors"][0]["field"] == "selection.partitions"
