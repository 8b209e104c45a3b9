"""What the API answers to good and bad requests."""

from __future__ import annotations

import contextlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from app.main import create_app
from tests.integration.conftest import ROWS, real_rows
from tests.integration.problems import fields_of, problem_of
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Service


def test_a_submitted_job_is_accepted_and_can_be_polled(shared_service: Service) -> None:
    response = shared_service.http.post("/jobs", json=shared_service.request())
    assert response.status_code == 202
    job = response.json()
    assert response.headers["Location"] == f"/jobs/{job['id']}"
    assert int(response.headers["Retry-After"]) > 0
    assert (job["state"], job["stage"], job["result"]) == ("queued", None, None)
    assert shared_service.job(job["id"]) == job


def test_defaults_are_those_of_the_design(shared_service: Service) -> None:
    body = shared_service.request()
    del body["gradients"]
    job = shared_service.http.post("/jobs", json=body).json()
    assert job["gradients"] == {
        "target": "lora",
        "rank": 8,
        "layers": None,
        "adapter": None,
        "warmup_steps": 0,
        "warmup_learning_rate": 2e-4,
        "preconditioner": "none",
        "sketch_dim": 2048,
        "seed": 0,
        "loss_normalization": "sum",
        "loss_over": "response",
        "prompt_effect": True,
        "store": "float32",
    }
    assert job["selection"]["method"] == "spice"
    assert job["selection"]["alpha"] == "auto"
    assert job["selection"]["conflict_penalty"] == 0.1
    assert job["selection"]["early_stop_ratio"] is None


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        ({"fraction": 0}, "selection.budget.fraction"),
        ({"fraction": 1.5}, "selection.budget.fraction"),
        ({"fraction": -0.1}, "selection.budget.fraction"),
        ({"fraction": "many"}, "selection.budget.fraction"),
        ({"count": 0}, "selection.budget.count"),
        ({"count": 2.5}, "selection.budget.count"),
        ({}, "selection.budget"),
        ({"fraction": 0.1, "count": 3}, "selection.budget"),
    ],
)
def test_a_bad_budget_is_refused_by_field(shared_service: Service, budget: dict[str, Any], field: str) -> None:
    assert field in fields_of(shared_service.http.post("/jobs", json=shared_service.request(budget=budget)))


@pytest.mark.parametrize(
    ("part", "value", "field"),
    [
        ("selection", {"method": "magic", "budget": {"fraction": 0.1}}, "selection.method"),
        ("selection", {"budget": {"fraction": 0.1}, "alpha": 0}, "selection.alpha"),
        ("selection", {"budget": {"fraction": 0.1}, "conflict_penalty": -1}, "selection.conflict_penalty"),
        ("selection", {"budget": {"fraction": 0.1}, "early_stop_ratio": 0}, "selection.early_stop_ratio"),
        ("selection", {"budget": {"fraction": 0.1}, "baselines": ["spice"]}, "selection"),
        ("selection", {"budget": {"fraction": 0.1}, "method": "random", "early_stop_ratio": 0.5}, "selection"),
        ("selection", {"budget": {"fraction": 0.1}, "curvature": True}, "selection"),
        ("selection", {"budget": {"fraction": 0.1}, "method": "dpp", "curvature": True}, "selection"),
        ("selection", {"budget": {"count": 9}, "method": "fisher", "partitions": 2, "curvature": True}, "selection"),
        ("gradients", {"sketch_dim": 0}, "gradients.sketch_dim"),
        ("gradients", {"sketch_dimension": 64}, "gradients.sketch_dimension"),
        ("gradients", {"target": "last_layer", "layers": ["q_proj"]}, "gradients"),
        ("gradients", {"target": "linear", "warmup_steps": 5}, "gradients"),
        ("gradients", {"target": "linear", "adapter": {"uri": "file:///models/adapter"}}, "gradients"),
        ("gradients", {"warmup_steps": 5, "adapter": {"uri": "file:///models/adapter"}}, "gradients"),
        ("gradients", {"layers": []}, "gradients.layers"),
        ("gradients", {"layers": ["x" * 201]}, "gradients.layers.0"),
        ("gradients", {"warmup_steps": 1001}, "gradients.warmup_steps"),
        ("gradients", {"warmup_learning_rate": 0}, "gradients.warmup_learning_rate"),
        ("gradients", {"preconditioner": "sgd"}, "gradients.preconditioner"),
        ("gradients", {"adapter": {"uri": "file:///etc/adapter"}}, "gradients.adapter.uri"),
        ("gradients", {"adapter": {"uri": "hub/name"}}, "gradients.adapter.uri"),
        ("model", {"uri": "file:///models/x", "dtype": "float16"}, "model.dtype"),
        ("model", {"uri": "hub/name"}, "model.uri"),
        ("dataset", {"uri": "ftp://example.org/train.jsonl"}, "dataset.uri"),
        ("dataset", {"uri": "http://example.org/train.jsonl"}, "dataset.uri"),
        ("dataset", {"uri": "file:///etc/passwd"}, "dataset.uri"),
        ("dataset", {"uri": "https://127.0.0.1/train.jsonl"}, "dataset.uri"),
        ("dataset", {"uri": "https://169.254.169.254/latest/meta-data.json"}, "dataset.uri"),
        ("dataset", {"uri": "s3://somebody-elses/train.jsonl"}, "dataset.uri"),
        ("dataset", {"uri": "file:///etc/\x00passwd"}, "dataset.uri"),
        ("dataset", {}, "dataset"),
        ("name", "", "name"),
        ("metadata", {"key": 1}, "metadata.key"),
    ],
)
def test_a_bad_field_is_named(shared_service: Service, part: str, value: Any, field: str) -> None:
    errors = fields_of(shared_service.http.post("/jobs", json=shared_service.request() | {part: value}))
    assert any(name == field or name.startswith(f"{field}.") for name in errors), errors


def test_half_precision_is_refused_with_its_remedy(shared_service: Service) -> None:
    body = shared_service.request()
    body["model"]["dtype"] = "float16"
    message = fields_of(shared_service.http.post("/jobs", json=body))["model.dtype"]
    assert "underflow in float16 without loss scaling: use bfloat16" in message


def test_a_path_that_climbs_out_of_the_roots_is_refused(shared_service: Service) -> None:
    uri = f"file://{shared_service.directory}/../../etc/passwd.jsonl"
    assert "dataset.uri" in fields_of(shared_service.http.post("/jobs", json=shared_service.request(uri)))
    link = shared_service.directory / "link.jsonl"
    link.symlink_to("/etc/passwd")
    assert "dataset.uri" in fields_of(shared_service.http.post("/jobs", json=shared_service.request(link.as_uri())))


def test_what_a_registered_dataset_tells_is_checked_at_once(shared_service: Service) -> None:
    dataset_id = shared_service.http.post("/datasets", json={"uri": shared_service.write_dataset(real_rows())}).json()[
        "id"
    ]
    shared_service.work()
    body = shared_service.request(budget={"count": ROWS + 1})
    body["dataset"] = {"id": dataset_id, "columns": {"prompt": "question", "response": "response"}}
    assert set(fields_of(shared_service.http.post("/jobs", json=body))) == {
        "selection.budget.count",
        "dataset.columns.prompt",
    }


@pytest.mark.parametrize("path", ["", "/subset", "/curve", "/conflicts", "/rejected"])
def test_an_unknown_id_is_404(shared_service: Service, path: str) -> None:
    assert problem_of(shared_service.http.get(f"/jobs/{uuid.uuid4()}{path}"), 404)["type"] == "job-not-found"


def test_other_unknown_things_are_404_405_and_422(shared_service: Service) -> None:
    assert problem_of(shared_service.http.post(f"/jobs/{uuid.uuid4()}/cancel"), 404)["type"] == "job-not-found"
    assert problem_of(shared_service.http.get(f"/datasets/{uuid.uuid4()}"), 404)["type"] == "dataset-not-found"
    body = shared_service.request() | {"dataset": {"id": str(uuid.uuid4())}}
    assert problem_of(shared_service.http.post("/jobs", json=body), 404)["type"] == "dataset-not-found"
    assert "GET /docs lists every path" in problem_of(shared_service.http.get("/nothing"), 404)["detail"]
    for method, path, allowed in (
        ("DELETE", "/jobs", "GET, POST, HEAD"),
        ("PUT", f"/jobs/{uuid.uuid4()}", "GET, PATCH, DELETE, HEAD"),
        ("GET", f"/jobs/{uuid.uuid4()}/cancel", "POST"),
    ):
        answer = shared_service.http.request(method, path)
        problem_of(answer, 405)
        assert answer.headers["Allow"] == allowed
    assert "job_id" in fields_of(shared_service.http.get("/jobs/not-an-id"))
    problem_of(shared_service.http.post("/jobs", content=b"{", headers={"content-type": "application/json"}), 422)


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/x-www-form-urlencoded"}])
def test_a_body_that_does_not_say_that_it_is_json(shared_service: Service, headers: dict[str, str]) -> None:
    """As `curl -d` sends it."""
    answer = shared_service.http.post("/jobs", content=json.dumps(shared_service.request()), headers=headers)
    assert "Content-Type: application/json" in fields_of(answer)["body"]


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b\x08\x00", b'{"name": "\xff"}', b"[" * 200_000, b'{"timeout_s": ' + b"9" * 5000 + b"}"]
)
def test_a_body_that_cannot_be_taken_apart(shared_service: Service, content: bytes) -> None:
    """Compressed, in another encoding, nested too deep, a number of thousands of digits."""
    answer = shared_service.http.post("/jobs", content=content, headers={"content-type": "application/json"})
    problem = problem_of(answer, 400)
    assert problem["type"] == "body-unreadable"
    assert "must be JSON in UTF-8, not compressed" in problem["detail"]


@pytest.mark.parametrize("says_its_length", [True, False])
@pytest.mark.parametrize("path", ["/jobs", f"/jobs/{uuid.UUID(int=1)}/cancel"])
def test_a_body_without_end_is_not_read(shared_service: Service, path: str, says_its_length: bool) -> None:
    most = shared_service.settings.request_max_bytes
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 64 * most:
            sent += 1 << 16
            yield b" " * (1 << 16)

    with (
        served(create_app(shared_service.settings)) as url,
        contextlib.suppress(httpx.TransportError),
    ):  # if it hangs up first
        content = b"{" + b" " * most if says_its_length else endless()
        headers = {"content-type": "application/json"}
        problem = problem_of(httpx.post(f"{url}{path}", content=content, headers=headers, trust_env=False), 413)
        assert problem["type"] == "body-too-large"
        assert f"{most} are what a request may have (SPICE_REQUEST_MAX_BYTES)" in problem["detail"]
    assert sent < 64 * most


def test_a_body_at_the_limit_is_read(shared_service: Service) -> None:
    body = json.dumps(shared_service.request()).encode()
    for more, status in ((0, 202), (1, 413)):
        content = body.ljust(shared_service.settings.request_max_bytes + more)
        answer = shared_service.http.post("/jobs", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == status


def test_a_job_without_result_says_so(shared_service: Service) -> None:
    job_id = shared_service.submit(shared_service.request())
    problem = problem_of(shared_service.http.get(f"/jobs/{job_id}/subset"), 409)
    assert problem["type"] == "result-not-ready"
    assert "queued" in problem["detail"]


def test_a_format_that_is_not_offered_is_406_or_422(shared_service: Service) -> None:
    job_id = shared_service.run(shared_service.request())["id"]
    url = f"/jobs/{job_id}/subset"
    assert problem_of(shared_service.http.get(url, headers={"Accept": "image/png"}), 406)["type"] == "not-acceptable"
    assert "format" in fields_of(shared_service.http.get(url, params={"format": "xml"}))


def test_a_queued_job_is_cancelled_at_once_and_stays_so(service: Service) -> None:
    job_id = service.submit(service.request())
    for _ in range(2):
        response = service.http.post(f"/jobs/{job_id}/cancel")
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")
    service.work()
    assert service.job(job_id)["state"] == "cancelled"
    assert problem_of(service.http.get(f"/jobs/{job_id}/subset"), 409)["type"] == "result-not-ready"


def test_a_finished_job_cannot_be_cancelled(shared_service: Service) -> None:
    job_id = shared_service.run(shared_service.request())["id"]
    assert problem_of(shared_service.http.post(f"/jobs/{job_id}/cancel"), 409)["type"] == "job-finished"


def test_pages_cover_every_job_once_while_jobs_are_added(service: Service) -> None:
    ids = [service.submit(service.request()) for _ in range(5)]
    service.http.post(f"/jobs/{ids[0]}/cancel")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = service.http.get("/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        service.submit(service.request())
    assert seen == ids[::-1]
    cancelled = service.http.get("/jobs", params={"state": "cancelled"}).json()
    assert [job["id"] for job in cancelled["items"]] == [ids[0]]


@pytest.mark.parametrize("cursor", ["x", ">", ">i:1~i:2", "<s:a~s:b", ">dt:x~uuid:y", "'; DROP TABLE jobs"])
def test_a_made_up_cursor_is_refused(shared_service: Service, cursor: str) -> None:
    assert "cursor" in fields_of(shared_service.http.get("/jobs", params={"cursor": cursor}))


def test_health_and_readiness(shared_service: Service) -> None:
    assert shared_service.http.get("/healthz").json() == {"status": "ok"}
    assert shared_service.http.get("/readyz").json()["status"] == "ok"


def test_every_endpoint_has_a_worked_example_and_its_problems(shared_service: Service) -> None:
    document = shared_service.http.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            successes = [operation["responses"][code] for code in operation["responses"] if code.startswith("2")]
            bodies = [kind for answer in successes for kind in answer.get("content", {}).values()]
            assert any("example" in kind for kind in bodies) or "204" in operation["responses"], (method, path)
            if "requestBody" in operation and operation["requestBody"].get("content"):
                (body,) = operation["requestBody"]["content"].values()
                assert body["examples"], (method, path)
            for code, answer in operation["responses"].items():
                if code == "304":
                    assert "content" not in answer, (method, path)
                elif not code.startswith("2"):
                    assert list(answer["content"]) == ["application/problem+json"], (method, path, code)
