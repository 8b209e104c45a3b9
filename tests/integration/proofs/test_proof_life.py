"""What becomes of a proof as a row of the service: deleted, expired, past its time, and within its quota."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from app.core.db.tables import Proof, State
from app.core.lifecycle import deadlines, leases, proofs
from app.core.storage import PROOFS, RUNS, open_artifacts
from app.housekeeping.expiry import expire
from app.housekeeping.retention import GRACE_S, sweep
from tests.integration.problems import problem_of
from tests.integration.proofs.test_proofs import ended, get_proof, proof_body, prove, submit_proof
from tests.integration.settled import expire_until

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from tests.integration.conftest import Service


@pytest.fixture
def changed(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings that differ from those of other tests."""
    return dict(getattr(request, "param", {}))


@pytest.fixture
def service_settings(service_settings: Settings, changed: dict[str, Any]) -> Settings:
    return service_settings.model_copy(update=changed)


def _groups(service: Service, prefix: str) -> set[str]:
    """The proofs, or the runs, that the store has files of."""
    return {stored.name.split("/")[1] for stored in open_artifacts(service.settings).list(prefix)}


def _keys(service: Service, proof_id: str) -> set[str]:
    lines = service.http.get(f"/proofs/{proof_id}/runs").text.splitlines()
    return {json.loads(line)["key"] for line in lines}


def _again(service: Service, proof: dict[str, Any], **fields: Any) -> str:
    """Another proof of the same job."""
    body = proof_body(service)
    return submit_proof(
        service, {"job": proof["job"], "arms": body["arms"], "training": body["training"], "seeds": 2, **fields}
    )


def test_a_deleted_proof_takes_along_what_no_other_proof_has(service: Service) -> None:
    first = prove(service)
    second = ended(service, _again(service, first, seeds=3))
    alone = _keys(service, second["id"]) - _keys(service, first["id"])
    assert len(alone) == 2
    open_one = _again(service, first)
    problem = problem_of(service.http.delete(f"/proofs/{open_one}"), 409)
    assert problem["type"] == "proof-not-final"
    assert service.http.post(f"/proofs/{open_one}/cancel").json()["state"] == "cancelled"
    assert service.http.delete(f"/proofs/{second['id']}").status_code == 204
    assert problem_of(service.http.get(f"/proofs/{second['id']}"), 404)["type"] == "proof-not-found"
    assert _groups(service, PROOFS) == {first["id"]}
    assert _groups(service, RUNS) == _keys(service, first["id"])
    for proof in (open_one, first["id"]):
        assert service.http.delete(f"/proofs/{proof}").status_code == 204
    assert _groups(service, PROOFS) | _groups(service, RUNS) == set()
    assert service.job(first["job"])["state"] == "succeeded", "the job is a job of its own"


def test_a_proof_expires_and_keeps_its_job_until_it_has_ended(service: Service, sessions: Sessions) -> None:
    proof_id = submit_proof(service, proof_body(service, expires_at="2100-01-01T00:00:00Z"))
    assert get_proof(service, proof_id)["expires_at"] == "2100-01-01T00:00:00Z"
    artifacts = open_artifacts(service.settings)
    with sessions() as session:
        session.execute(
            text("UPDATE jobs SET state = 'cancelled', finished_at = now(), expires_at = now() - interval '1 s'")
        )
        session.execute(text("UPDATE proofs SET expires_at = now() - interval '1 s'"))
        session.commit()
    assert expire(sessions, artifacts, service.settings) == 0, "the proof has not ended, and its job waits for it"
    assert service.http.post(f"/proofs/{proof_id}/cancel").status_code == 200
    expire_until(service, gone=2)
    assert service.http.get(f"/proofs/{proof_id}").status_code == 404


def test_old_files_of_proofs_go_and_verdicts_stay(service: Service, sessions: Sessions) -> None:
    done = prove(service)
    going_on = _again(service, done, seeds=3)
    limited = service.settings.model_copy(update={"artifacts_max_age_s": 1.0, "rows_max_age_s": 1.0})
    store = open_artifacts(service.settings)
    then = time.time() - 2 * GRACE_S
    for stored in (*store.list(PROOFS), *store.list(RUNS)):
        os.utime(store.path(stored.name), (then, then))  # type: ignore[attr-defined]
    with sessions() as session:  # as the worker does that plans it
        lease = leases.claim(session, Proof, uuid.UUID(going_on), 1, 60)
        assert lease is not None
        shared = min(_keys(service, done["id"]))
        assert proofs.park_for_runs(session, lease, [proofs.PlannedRun("selected", 0, shared, 1)], {})
    removed = sweep(sessions, store, limited)
    assert f"proofs/{done['id']}/" in removed
    assert _groups(service, RUNS) == {shared}, "what an open proof has stays"
    assert get_proof(service, done["id"])["comparisons"] == done["comparisons"]
    items = service.http.get(f"/proofs/{done['id']}/runs", params={"items": True})
    assert problem_of(items, 409)["type"] == "scores-not-ready"


def test_a_proof_past_its_time_fails_with_its_runs_and_its_job(service: Service, sessions: Sessions) -> None:
    proof_id = submit_proof(service, proof_body(service, timeout_s=30))
    proof = get_proof(service, proof_id)
    assert proof["timeout_s"] == 30
    with sessions() as session:
        lease = leases.claim(session, Proof, uuid.UUID(proof_id), 1, 60)
        assert lease is not None
        assert proofs.park_for_runs(session, lease, [proofs.PlannedRun("selected", 0, "k" * 64, 1)], {})
        session.execute(text("UPDATE proofs SET started_at = now() - interval '31 s'"))
        session.commit()
        deadlines.enforce(session)
        proofs.drop_finished(session)
        session.commit()
        assert [run.state for run in proofs.runs_of(session, uuid.UUID(proof_id))] == [State.CANCELLED]
    proof = get_proof(service, proof_id)
    assert (proof["state"], proof["error"]["type"]) == ("failed", "timed-out")
    assert "the 30 s" in proof["error"]["detail"]
    assert service.job(proof["job"])["state"] == "cancelled"


def test_a_job_that_another_proof_waits_for_is_not_cancelled_with_the_first(service: Service) -> None:
    first = get_proof(service, submit_proof(service, proof_body(service)))
    second = _again(service, first)
    assert service.http.post(f"/proofs/{first['id']}/cancel").json()["state"] == "cancelled"
    assert service.job(first["job"])["state"] == "queued"
    assert service.http.post(f"/proofs/{second}/cancel").json()["state"] == "cancelled"
    assert service.job(first["job"])["state"] == "cancelled"


@pytest.mark.parametrize("changed", [{"job_timeout_s": 20.0}], indirect=True)
def test_the_service_bounds_what_a_proof_may_take(service: Service) -> None:
    proof_id = submit_proof(service, proof_body(service, timeout_s=30))
    assert get_proof(service, proof_id)["timeout_s"] == 20
    wrong = service.http.post("/proofs", json=proof_body(service, timeout_s=0))
    assert wrong.json()["errors"][0]["field"] == "timeout_s"


@pytest.mark.parametrize("changed", [{"quota_open_jobs": 2}], indirect=True)
def test_an_open_proof_counts_once_in_the_quota_of_open_jobs(service: Service) -> None:
    first = get_proof(service, submit_proof(service, proof_body(service)))
    second = _again(service, first)
    for path, body in (
        ("/proofs", {"job": first["job"], "arms": ["selected", "random"]}),
        ("/proofs", proof_body(service)),
        ("/jobs", service.request()),
    ):
        problem = problem_of(service.http.post(path, json=body), 429)
        assert (problem["type"], problem["limit"]) == ("quota-exceeded", "open_jobs")
        assert "2 jobs and proofs of the project" in problem["detail"]
    service.http.post(f"/proofs/{second}/cancel")
    assert service.http.post("/jobs", json=service.request()).status_code == 202


def test_the_way_of_a_proof_is_told(service: Service) -> None:
    proof = prove(service)
    events = service.http.get(f"/proofs/{proof['id']}/events").json()["items"]
    states = [event["data"]["state"] for event in events if event["kind"] == "state"]
    stages = [event["data"]["stage"] for event in events if event["kind"] == "stage"]
    assert (states[0], states[-1]) == ("queued", "succeeded")
    assert [stage for stage in stages if stage in ("selecting", "training", "comparing")][-2:] == [
        "training",
        "comparing",
    ]
