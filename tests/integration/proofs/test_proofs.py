"""Proofs on real servers: what they find, what they train again, what they refuse."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from app.core.storage import arms_name, open_artifacts
from tests.integration.conftest import ROWS, real_rows
from workers.gradients.checked_tensors import unpack

if TYPE_CHECKING:
    from tests.integration.conftest import Service

TRAINING = {"rank": 2, "epochs": 1, "batch_tokens": 512, "learning_rate": 0.01}


def proof_body(service: Service, **fields: Any) -> dict[str, Any]:
    """A small proof over the tiny model and real rows."""
    job = service.request()
    return {
        **{name: job[name] for name in ("dataset", "model", "gradients", "selection")},
        "arms": ["selected", "random"],
        "seeds": 2,
        "training": TRAINING,
        **fields,
    }


def submit_proof(service: Service, body: dict[str, Any]) -> str:
    response = service.http.post("/proofs", json=body)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/proofs/{response.json()['id']}"
    return str(response.json()["id"])


def get_proof(service: Service, proof_id: str) -> dict[str, Any]:
    response = service.http.get(f"/proofs/{proof_id}")
    assert response.status_code == 200, response.text
    return dict(response.json())


def ended(service: Service, proof_id: str) -> dict[str, Any]:
    """The proof once it has ended, worked on in this process."""
    deadline = time.monotonic() + 240
    while True:
        service.work()
        proof = get_proof(service, proof_id)
        if proof["finished_at"] is not None:
            return proof
        assert time.monotonic() < deadline, proof
        time.sleep(0.1)


def prove(service: Service, **fields: Any) -> dict[str, Any]:
    return ended(service, submit_proof(service, proof_body(service, **fields)))


def arms_of(service: Service, proof_id: str) -> dict[str, list[int]]:
    """The places of each arm's rows among the pool's samples, which are all rows here."""
    found = unpack(open_artifacts(service.settings).read(arms_name(uuid.UUID(proof_id))) or b"")
    assert found is not None
    return {name: places.tolist() for name, places in found.tensors.items()}


def held_out(service: Service, proof_id: str) -> set[int]:
    """Row numbers of what a proof's runs were scored on."""
    lines = service.http.get(f"/proofs/{proof_id}/runs", params={"items": True}).text.splitlines()
    return {json.loads(line)["row"] for line in lines}


def test_a_proof_keeps_to_the_constraints_and_the_target_of_its_job(service: Service) -> None:
    """Rows that have to be picked and are held out aside; methods that compare with a target are arms like others."""
    rows = [{**row, "origin": ("code", "chat")[number % 2]} for number, row in enumerate(real_rows())]
    job = service.request(service.write_dataset(rows, "sourced.jsonl"))
    job["dataset"]["source_column"] = "origin"
    include, exclude = [2, 6, 7], list(range(20, 40))
    target = {"dataset": {"uri": service.write_dataset(rows[:6], "target.jsonl")}, "weight": 0.9}
    constraints = {"sources": {"code": {"min": 0.6}}, "include": include, "exclude": exclude}
    selection = {**job["selection"], "target": target, "constraints": constraints, "filters": {}}
    selection |= {"budget": {"count": 10}, "baselines": ["less"]}
    proof = prove(service, dataset=job["dataset"], selection=selection, arms=["selected", "random", {"method": "less"}])
    assert proof["state"] == "succeeded", proof["error"]
    arms = arms_of(service, proof["id"])
    candidates = set(range(ROWS)) - held_out(service, proof["id"])
    for name in ("selected", "less"):
        picks = arms[name]
        assert len(picks) == 10
        assert sum(number % 2 == 0 for number in picks) >= 6, "0.6 of 10 are code"
        assert not set(picks) & set(exclude)
        assert set(include) & candidates <= set(picks) <= candidates
    assert arms["selected"] != arms["less"]
    lost = len(set(include) - candidates)
    assert lost, "one of them is held out"
    left_out = {arm["name"]: arm["left_out"] for arm in proof["arms"]}
    assert left_out == {"selected": {"held_out": lost}, "random": {}, "less": {"held_out": lost}}


def test_an_evaluation_set_is_that_of_the_selection_or_none(service: Service) -> None:
    """The first 30 rows share text with the set: an arm without constraints may pick them, as a job without them."""
    shared = [{"question": row["response"]} for row in real_rows()[:30]]
    evaluation = {"dataset": {"uri": service.write_dataset(shared, "shared.jsonl")}, "ngram": 4}
    clean = {**proof_body(service)["selection"], "filters": {}, "constraints": {"decontaminate": evaluation}}
    proof = prove(
        service,
        selection=clean,
        arms=["selected", "random", {"name": "all_rows", "selection": {"constraints": None}}],
    )
    assert proof["state"] == "succeeded", proof["error"]
    arms = arms_of(service, proof["id"])
    assert min(arms["selected"]) >= 30
    assert min(arms["all_rows"]) < 30


def test_a_proof_from_a_request_to_its_verdicts(service: Service) -> None:
    proof = prove(
        service,
        arms=["selected", "random", "random_tokens", "all", "none", {"method": "fisher"}, {"method": "length"}],
        premise={"subsets": 4},
        metrics=["loss", {"name": "exact_match", "max_tokens": 4}],
        name="small",
    )
    assert proof["state"] == "succeeded", proof["error"]
    arms = {arm["name"]: arm for arm in proof["arms"]}
    assert list(arms) == ["selected", "random", "random_tokens", "all", "none", "fisher", "length"]
    picking = ("selected", "random", "fisher", "length")
    assert [arms[name]["rows"] for name in picking] == [10] * 4, "a fifth of 54"
    assert arms["all"]["rows"] == proof["held_out"]["candidates"] == 54
    assert proof["held_out"]["rows"] == 6
    assert arms["selected"]["steps"] == arms["random"]["steps"] == arms["random_tokens"]["steps"]
    assert arms["all"]["steps"] > arms["selected"]["steps"]
    assert abs(arms["random_tokens"]["tokens"] - arms["selected"]["tokens"]) < 128  # less than a row
    assert [len(arm["runs"]) for arm in arms.values()] == [2, 2, 2, 2, 1, 2, 2]
    assert arms["none"]["rows"] == 0
    for arm in arms.values():
        assert arm["mean"]["loss"] == pytest.approx(
            sum(run["metrics"]["loss"] for run in arm["runs"]) / len(arm["runs"])
        )
    compared = {(one["arm"], one["metric"]) for one in proof["comparisons"]}
    assert compared == {(arm, metric) for arm in arms if arm != "random" for metric in ("loss", "exact_match")}
    for one in proof["comparisons"]:
        assert one["against"] == "random"
        assert one["verdict"] in {"better", "worse", "equivalent", "not_enough_runs"}
        assert one["difference"] == pytest.approx(
            arms[one["arm"]]["mean"][one["metric"]] - arms["random"]["mean"][one["metric"]]
        )
        assert one["interval"][0] <= one["difference"] <= one["interval"][1]
    assert len(proof["premise"]["points"]) == 4
    assert [point["selected_share"] for point in proof["premise"]["points"]] == [0, 0, 0.5, 1]
    # Fisher picks what the penalised greedy picks here, and the last mixture is the selection: trained once.
    assert proof["cost"]["runs_trained"] + proof["cost"]["runs_reused"] == 13 + 4
    assert proof["cost"]["runs_reused"] >= 1
    assert proof["cost"]["training_s"] > 0
    job = service.job(proof["job"])
    assert job["state"] == "succeeded"
