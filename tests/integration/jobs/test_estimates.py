"""What a job would take, before it is submitted: told by a worker that reads the rows as the job would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conftest import ROWS, real_rows
from tests.integration.settled import DEADLINE_S

if TYPE_CHECKING:
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes

MANY = 1100
"""More than are sampled."""
TOLD = {
    *("tokens", "rows", "rows_rejected", "rows_sampled", "seconds", "bytes", "memory_bytes", "basis", "problems"),
    *("gradient_rows", "gradient_tokens", "selected", "device", "workers"),
}


def estimate(service: Service, body: dict[str, Any], path: str = "/estimates") -> dict[str, Any]:
    response = service.estimate(body, path)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_a_job_is_estimated_by_a_probe_then_by_earlier_jobs_then_by_what_is_there(service: Service) -> None:
    body = service.request()
    probed = estimate(service, body)
    assert probed.keys() >= TOLD
    assert (probed["basis"], probed["rows"], probed["rows_rejected"]) == ("probe", ROWS, 0)
    assert [one["field"] for one in probed["problems"]] == ["model.max_length"], "most rows are cut"
    assert (probed["gradient_rows"], probed["selected"]) == (ROWS, ROWS // 5)
    assert service.http.get("/jobs").json()["items"] == []

    job = service.run(body)
    assert job["state"] == "succeeded", job["error"]
    assert probed["tokens"] == probed["gradient_tokens"] == job["result"]["tokens"]
    assert probed["selected"] == job["result"]["selected"]

    other = {**body, "gradients": {**body["gradients"], "seed": 1}}
    known = estimate(service, other)
    assert (known["basis"], known["gradient_rows"]) == ("earlier jobs", ROWS)
    for told in (known["seconds"], *known["seconds"]["stages"].values()):
        assert 0 <= told["low"] <= told["likely"] <= told["high"]
    likely = sum(one["likely"] for one in known["seconds"]["stages"].values())
    assert known["seconds"]["likely"] == pytest.approx(likely, abs=0.01)

    again = estimate(service, body)
    assert (again["gradient_rows"], again["gradient_tokens"]) == (0, 0)
    assert again["seconds"]["stages"]["gradients"]["likely"] == 0
    assert again["bytes"] < known["bytes"]

    dry = estimate(service, other, "/jobs?dry_run=true")
    assert {name: dry[name] for name in ("rows", "tokens", "basis")} == {
        name: known[name] for name in ("rows", "tokens", "basis")
    }
    assert len(service.http.get("/jobs").json()["items"]) == 1

    parted = estimate(service, service.request(partitions=4))
    (said,) = (one["message"] for one in parted["problems"] if one["field"] == "selection.partitions")
    assert said.startswith("is 4, and one worker selects: it would work on the parts one after the other")


def test_what_would_fail_the_job_is_told_as_the_job_would_tell_it(service: Service) -> None:
    rows: list[dict[str, Any]] = [*real_rows()[:40], *({"prompt": "x", "response": " "} for _ in range(20))]
    uri = service.write_dataset(rows, "dirty.jsonl")
    cases = {
        "dataset-too-many-rejected": service.request(uri),
        "dataset-unknown-column": {
            **service.request(),
            "dataset": {**service.request()["dataset"], "columns": {"prompt": "nowhere", "response": "response"}},
        },
        "budget-too-large": service.request(budget={"count": ROWS + 1}),
    }
    for kind, body in cases.items():
        response = service.estimate(body)
        assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
        told = response.json()
        assert told["type"] == kind, told
        failed = service.run(body)["error"]
        assert {name: told[name] for name in ("type", "title", "detail", "errors")} == {
            name: failed[name] for name in ("type", "title", "detail", "errors")
        }
    refused = service.http.post("/jobs?dry_run=true", json=service.request("file:///etc/passwd"))
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "dataset.uri")


def test_many_rows_are_told_by_a_sample(service: Service) -> None:
    rows: list[dict[str, Any]] = [
        {**row, "prompt": f"{number}: {row['prompt']}"}
        for number, row in enumerate((real_rows() * (MANY // ROWS + 1))[:MANY])
    ]
    for number in range(0, MANY, 25):
        rows[number] = {"prompt": "x", "response": ""}
    body = service.request(service.write_dataset(rows, "many.jsonl"))
    told = estimate(service, body)
    assert (told["rows"], told["rows_sampled"]) == (MANY, 1024)
    assert told["rows_rejected"] == pytest.approx(MANY / 25, abs=12)
    assert told["gradient_rows"] == told["rows"] - told["rows_rejected"]
    cache = service.settings.cache_path
    assert [*(cache / "corpora").glob("*"), *(cache / "rows").glob(".*")] == [], "what was sampled leaves nothing"


def test_a_request_waits_for_its_estimate(
    service: Service, workers: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.estimates.WAIT_S", DEADLINE_S)  # a busy machine starts a worker later than ours do
    workers.start()
    response = service.http.post("/estimates", json=service.request())
    assert (response.status_code, response.json()["rows"]) == (200, ROWS)


def test_an_estimate_that_no_worker_makes_is_looked_at_later(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.estimates.WAIT_S", 0.1)
    response = service.http.post("/estimates", json=service.request())
    assert (response.status_code, response.json()["state"]) == (202, "queued")
    place = response.headers["Location"]
    assert service.http.get(place).status_code == 202
    service.work()
    looked = service.http.get(place)
    assert (looked.status_code, looked.json()["rows"]) == (200, ROWS)
    unknown = service.http.get("/estimates/00000000-0000-4000-8000-000000000000")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "estimate-not-found")
