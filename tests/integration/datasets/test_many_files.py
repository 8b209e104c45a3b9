"""A job over many files: rows are numbered through all of them, and each pick names its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conftest import real_rows

if TYPE_CHECKING:
    from tests.integration.conftest import Service


def test_a_job_over_a_list_of_files_picks_as_over_one(service: Service) -> None:
    rows = real_rows()
    uris = [service.write_dataset(rows[start : start + 20], f"part-{start}.jsonl") for start in (0, 20, 40)]
    whole = service.run(service.request())
    for dataset in ({"uris": uris}, {"uri": f"{service.directory.as_uri()}/part-*.jsonl"}):
        found = service.run({**service.request(), "dataset": dataset})
        assert found["state"] == "succeeded", found["error"]
        assert found["result"]["files"] == [
            {"uri": uri, "first_row": 20 * place, "rows": 20} for place, uri in enumerate(uris)
        ]
        assert found["result"]["selected"] == whole["result"]["selected"]
        picked = service.http.get(f"/jobs/{found['id']}/rows").json()["items"]
        assert all(row["file"] == uris[row["index"] // 20] for row in picked)
        picks = [service.http.get(job["links"]["subset"]).json()["indices"] for job in (whole, found)]
        assert picks[0] == picks[1]


def test_a_registered_directory_can_be_looked_at(service: Service) -> None:
    directory = service.directory / "shards"
    directory.mkdir()
    for place in range(2):
        service.write_dataset(real_rows()[place : place + 1], f"shards/{place}.jsonl")
    dataset = service.http.post("/datasets", json={"uri": f"{directory.as_uri()}/"}).json()["id"]
    service.work()
    found = service.http.get(f"/datasets/{dataset}").json()
    assert (found["state"], found["rows"], found["shape"]) == ("succeeded", 2, "prompt_response"), found["error"]


def test_a_list_of_files_is_registered_and_a_job_selects_from_it(service: Service) -> None:
    uris = [service.write_dataset(real_rows()[start : start + 20], f"part-{start}.jsonl") for start in (20, 0)]
    answer = service.http.post("/datasets", json={"uris": uris})
    assert answer.status_code == 202, answer.text
    service.work()
    found = service.http.get(answer.headers["Location"]).json()
    assert (found["state"], found["rows"], found["uri"], found["uris"]) == ("succeeded", 40, uris[0], uris)
    preview = service.http.post(
        f"{answer.headers['Location']}/previews", json={"model": {"uri": service.model_uri}, "first_row": 20, "rows": 1}
    )
    service.work()
    shown = service.http.get(preview.headers["Location"]).json()["rows"][0]
    assert real_rows()[0]["prompt"] in "".join(shown["pieces"]), "the second file begins at row 20"
    job = service.run({**service.request(), "dataset": {"id": found["id"]}})
    assert job["state"] == "succeeded", job["error"]
    assert [file["uri"] for file in job["result"]["files"]] == uris


@pytest.mark.parametrize("body", [{}, {"uri": "file:///a.jsonl", "uris": ["file:///b.jsonl"]}, {"uris": []}])
def test_a_dataset_is_registered_by_one_uri_or_by_many(service: Service, body: dict[str, Any]) -> None:
    assert service.http.post("/datasets", json=body).status_code == 422


def test_a_uri_of_a_registered_list_that_is_refused_is_named(service: Service) -> None:
    body = {"uris": [service.write_dataset(real_rows()), "file:///etc/passwd.jsonl"]}
    answer = service.http.post("/datasets", json=body)
    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, ["uris.1"])


def test_a_uri_of_the_list_that_is_refused_is_named(service: Service) -> None:
    body = {**service.request(), "dataset": {"uris": [service.write_dataset(real_rows()), "file:///etc/passwd.jsonl"]}}
    answer = service.http.post("/jobs", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "dataset.uris.1")
