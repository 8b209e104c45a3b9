"""A job from POST to subset on real servers, with a tiny model and real text."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tests.integration.conftest import ROWS, real_rows
from tests.integration.tiny_model import save_tiny_adapter
from workers.gradients.starting_point import StartingPoint, starting_point
from workers.runtime.context import current_context

if TYPE_CHECKING:
    from tests.integration.conftest import Service


@pytest.fixture(scope="module")
def job(shared_service: Service) -> dict[str, Any]:
    """A finished job, the first of its service, which is not to be changed."""
    service = shared_service
    found = service.run({**service.request(baselines=["random", "fisher"]), "name": "nightly", "metadata": {"a": "b"}})
    assert found["state"] == "succeeded", found["error"]
    return found


def test_a_job_picks_its_budget_and_says_how_good_it_is(job: dict[str, Any]) -> None:
    result = job["result"]
    assert result["rows_total"] == result["rows_usable"] == ROWS
    assert result["selected"] == ROWS // 5
    assert result["stop_reason"] == "budget"
    assert 0 < result["certificate"]["value"] <= 1
    assert result["log_det"] <= result["certificate"]["optimum_upper_bound"]
    assert result["certificate"]["epsilon_bound_violations"] == 0
    assert result["log_det"] > result["baselines"]["random"]["log_det"]
    assert set(result["baselines"]) == {"random", "fisher"}
    assert all(0 <= baseline["overlap"] <= 1 for baseline in result["baselines"].values())
    assert set(result["seconds"]) == {"reading", "gradients", "selecting", "publishing"}
    assert job["stage"] is None
    assert job["name"] == "nightly"
    assert job["metadata"] == {"a": "b"}


def test_the_subset_is_the_same_in_every_format(shared_service: Service, job: dict[str, Any]) -> None:
    url = job["links"]["subset"]
    arrays = shared_service.http.get(url).json()
    assert len(set(arrays["indices"])) == job["result"]["selected"]
    assert np.isclose(sum(arrays["marginal_gains"]), job["result"]["log_det"], rtol=1e-9)
    ranked = [
        {"rank": rank, "index": i, "marginal_gain": g, "epsilon": e, "conflict": c, "log_det": f}
        for rank, (i, g, e, c, f) in enumerate(
            zip(
                *(arrays[name] for name in ("indices", "marginal_gains", "epsilons", "conflicts", "log_det")),
                strict=True,
            )
        )
    ]
    ndjson = shared_service.http.get(url, headers={"Accept": "application/x-ndjson"})
    assert [json.loads(line) for line in ndjson.text.splitlines()] == ranked
    table = pq.read_table(io.BytesIO(shared_service.http.get(url, params={"format": "parquet"}).content))
    assert table.to_pylist() == ranked
    text = shared_service.http.get(url, headers={"Accept": "text/csv;q=0.9, application/json;q=0.1"}).text
    assert [{name: float(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))] == ranked


def test_the_rows_themselves_come_in_the_datasets_format_and_file_order(
    shared_service: Service, job: dict[str, Any]
) -> None:
    indices = shared_service.http.get(job["links"]["subset"]).json()["indices"]
    response = shared_service.http.get(job["links"]["subset"], params={"rows": "true"})
    assert response.headers["content-type"].startswith("application/x-ndjson")
    rows = real_rows()
    assert [json.loads(line) for line in response.text.splitlines()] == [rows[i] for i in sorted(indices)]


def test_the_curve_rises_and_can_be_thinned(shared_service: Service, job: dict[str, Any]) -> None:
    curve = shared_service.http.get(job["links"]["curve"]).json()
    assert curve["rank"] == list(range(1, job["result"]["selected"] + 1))
    assert curve["log_det"] == sorted(curve["log_det"])
    assert set(curve["baselines"]) == {"random", "fisher"}
    thin = shared_service.http.get(job["links"]["curve"], params={"points": 3}).json()
    assert thin["rank"] == [4, 8, 12]
    assert thin["log_det"] == [curve["log_det"][rank - 1] for rank in thin["rank"]]


def test_the_conflict_statistics_agree_with_the_picks(shared_service: Service, job: dict[str, Any]) -> None:
    conflicts = shared_service.http.get(job["links"]["subset"]).json()["conflicts"]
    statistics = shared_service.http.get(job["links"]["conflicts"]).json()
    assert np.isclose(statistics["mean"], np.mean(conflicts))
    assert np.isclose(statistics["max"], max(conflicts))
    assert sum(statistics["histogram"]["counts"]) == len(conflicts)


def test_the_same_request_gives_the_same_indices_and_reuses_the_sketches(
    shared_service: Service, job: dict[str, Any]
) -> None:
    again = shared_service.run(shared_service.request(budget={"count": 12}))
    assert again["result"]["sketches_reused"]
    assert not job["result"]["sketches_reused"]
    for result in (job["result"], again["result"]):
        assert result["left_out"] == [], "a Llama's blocks are linear maps and norms"
        assert result["weights_stored_as"] is None
    first, second = (shared_service.http.get(j["links"]["subset"]).json()["indices"] for j in (job, again))
    assert first == second


def test_rows_that_cannot_be_used_are_named_and_the_others_selected_from(service: Service) -> None:
    rows: list[dict[str, Any]] = list(real_rows())
    rows[7] = {"prompt": "an empty response", "response": " "}
    path = service.write_dataset(rows)
    with (service.directory / "train.jsonl").open("a") as file:
        file.write("{broken\n")
    found = service.run(service.request(path))
    assert found["state"] == "succeeded", found["error"]
    assert {item["reason"]: item["rows"] for item in found["result"]["rejected"]} == {
        "empty_response": [7],
        "invalid_json": [ROWS],
    }
    rejected = service.http.get(found["links"]["rejected"]).json()["rejected"]
    assert [item["rows"] for item in rejected] == [[7], [ROWS]]
    picked = service.http.get(found["links"]["subset"]).json()["indices"]
    assert not {7, ROWS} & set(picked)


@pytest.mark.parametrize("method", ["fisher", "dpp", "grad_norm", "random"])
def test_every_method_can_be_asked_for(shared_service: Service, method: str) -> None:
    found = shared_service.run(shared_service.request(method=method, conflict_penalty=0.5))
    assert found["state"] == "succeeded", found["error"]
    assert found["result"]["selected"] == ROWS // 5
    assert 0 < found["result"]["certificate"]["value"] <= 1
    subset = shared_service.http.get(found["links"]["subset"]).json()
    assert np.isclose(sum(subset["marginal_gains"]), found["result"]["log_det"], rtol=1e-9)


@pytest.mark.parametrize(
    "gradients",
    [
        {"target": "linear"},
        {"target": "last_layer"},
        {"target": "linear", "layers": ["q_proj", "layers.1.mlp.*"]},
        {"rank": 4, "warmup_steps": 2},
        {"target": "linear", "layers": ["v_proj"], "preconditioner": "adam"},
    ],
    ids="-".join,
)
def test_every_gradient_target_can_be_asked_for(shared_service: Service, gradients: dict[str, Any]) -> None:
    body = shared_service.request(representative=0)
    body["gradients"] = {"sketch_dim": 64, "loss_normalization": "mean", **gradients}
    found = shared_service.run(body)
    assert found["state"] == "succeeded", found["error"]
    assert found["result"]["alpha"] == pytest.approx(1.0, rel=1e-4)


def test_a_given_adapter_is_scored_and_its_content_is_part_of_the_address(service: Service) -> None:
    body = service.request()
    fresh = service.run(body)["result"]["sketches"]
    directory = save_tiny_adapter(service.directory / "adapter", seed=0)
    body["gradients"]["adapter"] = {"uri": directory.as_uri()}
    first = service.run(body)
    assert first["state"] == "succeeded", first["error"]
    save_tiny_adapter(directory, seed=1)
    second = service.run(body)
    assert len({fresh, first["result"]["sketches"], second["result"]["sketches"]}) == 3
    save_tiny_adapter(directory, seed=0)
    assert service.run(body)["result"]["sketches_reused"]


@pytest.mark.small_shards
def test_a_prepared_job_computes_its_preparation_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """All four shards, and a second job after one of them was lost, start from the same adapter."""
    made: list[int] = []

    def counted(*arguments: Any) -> StartingPoint:
        made.append(1)
        return starting_point(*arguments)

    monkeypatch.setattr("workers.stages.shard.starting_point", counted)
    body = service.request()
    body["gradients"] |= {"warmup_steps": 2, "preconditioner": "adam"}
    first = service.run(body)
    assert first["state"] == "succeeded", first["error"]
    sketches = service.settings.artifacts_path / "sketches" / first["result"]["sketches"]
    shard = min(sketches.glob("shard-*.safetensors"))
    before = load_file(shard)["values"]
    shard.unlink()
    current_context.cache_clear()  # as in a worker that was started anew
    assert service.run(body)["state"] == "succeeded"
    assert np.array_equal(load_file(shard)["values"], before)
    assert made == [1]


def test_the_curvature_is_computed_where_it_is_asked_for(shared_service: Service) -> None:
    found = shared_service.run(shared_service.request(conflict_penalty=0, curvature=True))
    certificate = found["result"]["certificate"]
    assert 0 < certificate["curvature"] <= 1
    factor = (1 - np.exp(-certificate["curvature"])) / certificate["curvature"]
    assert np.isclose(certificate["curvature_factor"], factor)
    words = " ".join(shared_service.http.get(f"/jobs/{found['id']}/figures").json()["summary"])
    assert f"proves at least {factor:.1%} before a row is picked" in words


def test_an_early_stop_says_so(shared_service: Service) -> None:
    found = shared_service.run(shared_service.request(early_stop_ratio=0.9, budget={"fraction": 1.0}))
    assert found["result"]["stop_reason"] == "early_stop"
    assert found["result"]["selected"] < ROWS


def test_a_registered_dataset_is_described_and_selected_from(service: Service) -> None:
    uri = service.write_dataset(real_rows())
    response = service.http.post("/datasets", json={"uri": uri})
    assert response.status_code == 202
    service.work()
    dataset = service.http.get(response.headers["Location"]).json()
    assert dataset["state"] == "succeeded", dataset["error"]
    assert (dataset["rows"], dataset["columns"]) == (ROWS, ["prompt", "response"])
    assert dataset["fingerprint"].startswith("sha256:")
    body = service.request(uri)
    body["dataset"] = {"id": dataset["id"]}
    assert service.run(body)["result"]["fingerprint"] == dataset["fingerprint"]


def test_a_dataset_that_changed_since_it_was_registered_fails_the_job(service: Service) -> None:
    uri = service.write_dataset(real_rows())
    dataset_id = service.http.post("/datasets", json={"uri": uri}).json()["id"]
    service.work()
    service.write_dataset(real_rows(ROWS - 1))
    body = service.request()
    service.write_dataset(real_rows(ROWS - 1))
    body["dataset"] = {"id": dataset_id}
    found = service.run(body)
    assert (found["state"], found["error"]["type"]) == ("failed", "dataset-changed")
    assert "register it again if dataset.id names it" in found["error"]["detail"]
