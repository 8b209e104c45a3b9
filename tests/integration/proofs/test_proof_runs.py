"""What becomes of a proof's runs: they are found again, survive a killed worker, stop when told, and fail by name."""

from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests.integration.deadlines import soon
from tests.integration.problems import problem_of
from tests.integration.proofs.test_proofs import TRAINING, ended, get_proof, proof_body, prove, submit_proof

if TYPE_CHECKING:
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes

DEADLINE_S = 200


def _wait(service: Service, proof_id: str, seconds: float = DEADLINE_S) -> dict[str, Any]:
    """The proof once it has ended, worked on by others."""
    deadline = time.monotonic() + seconds
    while (proof := get_proof(service, proof_id))["finished_at"] is None:
        assert time.monotonic() < deadline, proof
        time.sleep(0.1)
    return proof


def _runs(service: Service, proof_id: str) -> list[dict[str, Any]]:
    response = service.http.get(f"/proofs/{proof_id}/runs")
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def test_one_more_seed_trains_only_that(service: Service) -> None:
    first = prove(service)
    job = first["job"]
    again = {"job": job, **{name: proof_body(service)[name] for name in ("arms", "training")}}
    second = ended(service, submit_proof(service, {**again, "seeds": 3}))
    assert (second["cost"]["runs_reused"], second["cost"]["runs_trained"]) == (4, 2)
    old, new = ({run["key"] for run in _runs(service, proof["id"])} for proof in (first, second))
    assert old < new
    items = service.http.get(f"/proofs/{second['id']}/runs", params={"items": True, "format": "parquet"})
    table = pq.read_table(io.BytesIO(items.content)).to_pandas()
    assert len(table) == 2 * 3 * second["held_out"]["rows"]
    means = table.groupby("arm")["score"].mean()
    for arm in second["arms"]:
        assert means[arm["name"]] == pytest.approx(arm["mean"]["loss"])
    lines = service.http.get(f"/proofs/{second['id']}/runs", params={"items": True}).text.splitlines()
    assert len(lines) == len(table)
    scores = service.settings.artifacts_path / "proofs" / second["id"] / "scores.parquet"
    content = bytearray(items.content)
    content[len(content) // 2] ^= 1
    scores.write_bytes(bytes(content))
    for kind in ("parquet", "ndjson"):
        damaged = service.http.get(f"/proofs/{second['id']}/runs", params={"items": True, "format": kind})
        assert problem_of(damaged, 500)["type"] == "scores-damaged"
    page = service.http.get(f"/proofs/{second['id']}/report")
    assert page.status_code == 200
    assert "selected against random: loss" in page.text
    kinds = [event["kind"] for event in service.http.get(f"/proofs/{second['id']}/events").json()["items"]]
    assert kinds[0] == kinds[-1] == "state"
    assert "stage" in kinds


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_goes_on_from_its_checkpoint_after_its_worker_was_killed(service: Service, workers: Processes) -> None:
    body = proof_body(
        service, training={**TRAINING, "epochs": 20, "batch_tokens": 128}, seeds=2, arms=["all", "random"]
    )
    body["selection"]["budget"] = {"count": 5}
    proof_id = submit_proof(service, body)
    victim = workers.start(proof_checkpoint_s=0.3, lease_s=4.0)
    deadline = time.monotonic() + DEADLINE_S
    while not any(worker["done"] > 2 for worker in get_proof(service, proof_id)["workers"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    victim.kill()
    workers.start(lease_s=20.0)  # loading what trains may hold a busy machine up for longer than the tests' own
    proof = _wait(service, proof_id)
    assert proof["state"] == "succeeded", proof["error"]
    assert all(run["state"] == "succeeded" for run in _runs(service, proof_id))
    outcomes = [run for arm in proof["arms"] for run in arm["runs"]]
    assert len(outcomes) == 4
    assert _resumed(service, proof_id), "the run that the worker died in did not begin anew"


def _resumed(service: Service, proof_id: str) -> list[int]:
    from app.core.db.engine import make_engine, make_sessions  # noqa: PLC0415
    from app.core.lifecycle.proofs import runs_of  # noqa: PLC0415

    engine = make_engine(service.settings)
    with make_sessions(engine)() as session:
        found = [(run.outcome or {}).get("resumed_at") for run in runs_of(session, proof_id)]  # type: ignore[arg-type]
    engine.dispose()
    return [step for step in found if step]


def test_a_cancelled_proof_ends_at_once_and_its_worker_is_free_soon(service: Service, workers: Processes) -> None:
    body = proof_body(
        service, training={**TRAINING, "epochs": 100, "batch_tokens": 64}, seeds=5, arms=["all", "random"]
    )
    proof_id = submit_proof(service, body)
    workers.start()
    deadline = time.monotonic() + DEADLINE_S
    while not get_proof(service, proof_id)["workers"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert service.http.post(f"/proofs/{proof_id}/cancel").json()["state"] == "cancelled"
    began = time.monotonic()
    follower = service.submit(service.request())  # the worker is free for it once it has let go of the run
    while service.job(follower)["started_at"] is None:
        assert time.monotonic() - began < soon(5), "the worker has not let go of the run"
        time.sleep(0.05)
    assert {run["state"] for run in _runs(service, proof_id)} <= {"cancelled", "succeeded"}
    assert service.http.post(f"/proofs/{proof_id}/cancel").status_code == 200
