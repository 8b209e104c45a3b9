"""A job that can't succeed ends failed, says why, and leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from app.core.settings import get_settings
from tests.integration.conftest import ROWS, real_rows
from workers.gradients.engine import GradientEngine, Sketches

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Service
    from workers.data.samples import Sample


def fails(service: Service, body: dict[str, Any], kind: str, *words: str) -> dict[str, Any]:
    job = service.run(body)
    assert job["state"] == "failed"
    assert job["error"]["type"] == kind, job["error"]
    for word in words:
        assert word in job["error"]["detail"], job["error"]
    assert job["result"] is None
    assert job["links"]["subset"] is None
    assert service.http.get(f"/jobs/{job['id']}/subset").status_code == 409
    assert not list((service.settings.artifacts_path / "jobs").glob(f"*{job['id']}*"))
    return job


def test_a_missing_file(shared_service: Service) -> None:
    fails(
        shared_service,
        shared_service.request((shared_service.directory / "none.jsonl").as_uri()),
        "dataset-missing",
        "none.jsonl",
    )


def test_an_empty_dataset(shared_service: Service) -> None:
    fails(shared_service, shared_service.request(shared_service.write_dataset([])), "dataset-empty")


def test_unknown_columns(shared_service: Service) -> None:
    body = shared_service.request()
    body["dataset"]["columns"] = {"prompt": "question", "response": "response"}
    fails(shared_service, body, "dataset-unknown-column", "question", "prompt")


def test_a_shape_that_is_not_recognised(shared_service: Service) -> None:
    fails(
        shared_service, shared_service.request(shared_service.write_dataset([{"a": "b"}])), "dataset-unrecognised-shape"
    )


def test_too_many_bad_rows(shared_service: Service) -> None:
    rows: list[dict[str, Any]] = [*real_rows(), *({"prompt": "why?", "response": ""} for _ in range(10))]
    body = shared_service.request(shared_service.write_dataset(rows))
    fails(shared_service, body, "dataset-too-many-rejected", "empty_response", str(ROWS))
    body["dataset"]["max_rejected_fraction"] = 0.5
    assert shared_service.run(body)["state"] == "succeeded"


def test_a_budget_beyond_the_usable_rows(shared_service: Service) -> None:
    told = f"selection.budget.count: is {ROWS + 1}, but only {ROWS} rows can be used"
    fails(shared_service, shared_service.request(budget={"count": ROWS + 1}), "budget-too-large", told)


@pytest.mark.parametrize(
    "damage", ["missing", "no_weights", "truncated", "pickled", "lying_header", "remote_code", "not_json", "absurd"]
)
def test_a_model_that_cannot_load(shared_service: Service, tiny_model: Any, damage: str) -> None:
    directory = shared_service.directory / damage
    directory.mkdir()
    if damage != "missing":
        for file in tiny_model.iterdir():
            (directory / file.name).write_bytes(file.read_bytes())
    weights, config = directory / "model.safetensors", directory / "config.json"
    if damage == "missing":
        directory.rmdir()
    elif damage == "no_weights":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "pickled":
        weights.rename(directory / "pytorch_model.bin")
    elif damage == "lying_header":
        weights.write_bytes((2**40).to_bytes(8, "little") + weights.read_bytes()[8:])
    elif damage == "absurd":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 10**9}))
    elif damage == "remote_code":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModel": "evil.Evil"}}))
    else:
        config.write_text("{")
    body = shared_service.request()
    body["model"]["uri"] = directory.as_uri()
    fails(shared_service, body, "model-unusable")


def test_rows_that_are_longer_than_the_model_was_made_for(service: Service) -> None:
    """Said of the whole dataset beforehand, not by the shard that one of them is in, hours later."""
    rows = [*real_rows(), {"prompt": "Why?", "response": "because " * 600}]
    body = service.request(service.write_dataset(rows))
    body["model"]["max_length"] = 600
    job = fails(service, body, "model-unusable", f"row {ROWS} has 600 tokens", "set max_length to 512")
    assert job["error"]["errors"][0]["field"] == "model.max_length"
    assert not (service.settings.artifacts_path / "sketches").exists()
    body["model"]["max_length"] = 512
    assert service.run(body)["state"] == "succeeded"


def test_a_chat_template_that_never_ends(service: Service, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = service.directory / "model"
    shutil.copytree(tiny_model, directory)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (directory / "chat_template.jinja").write_text(loop)
    monkeypatch.setenv("SPICE_TEMPLATE_TIMEOUT_S", "0.5")
    get_settings.cache_clear()
    body = service.request()
    body["model"]["uri"] = directory.as_uri()
    fails(service, body, "dataset-chat-template-broken", "more than 0.5 s", "SPICE_TEMPLATE_TIMEOUT_S")


def test_gradients_that_are_all_zero(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(engine: GradientEngine, samples: list[Sample], **_: Any) -> Sketches:
        """Stands in for a model that gives nothing, which the engine's own probe of random ones never is."""
        n, p = len(samples), engine.config.sketch_dim
        losses = np.zeros(n, np.float32)
        return Sketches(np.zeros((n, p), np.float32), losses, np.ones(n, np.bool_), losses, losses, losses)

    monkeypatch.setattr(GradientEngine, "sketch", zeros)
    fails(service, service.request(), "no-information", str(ROWS))


def test_rows_whose_gradient_is_not_finite_are_left_out(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = GradientEngine.sketch

    def one_nan(engine: GradientEngine, samples: list[Sample], **callbacks: Any) -> Sketches:
        found = sketch(engine, samples, **callbacks)
        for place, sample in enumerate(samples):
            if sample.row == 33:
                found.values[place] = np.nan
                found.finite[place] = False
        return found

    monkeypatch.setattr(GradientEngine, "sketch", one_nan)
    job = service.run(service.request(budget={"fraction": 1.0}))
    assert job["state"] == "succeeded", job["error"]
    assert job["result"]["rejected"] == [{"reason": "non_finite_gradient", "count": 1, "rows": [33], "message": None}]
    assert 33 not in service.http.get(job["links"]["subset"]).json()["indices"]
    fails(service, service.request(budget={"count": ROWS}), "budget-too-large", str(ROWS - 1))


def test_a_dataset_that_cannot_be_read_fails_its_registration(shared_service: Service) -> None:
    response = shared_service.http.post("/datasets", json={"uri": (shared_service.directory / "none.parquet").as_uri()})
    shared_service.work()
    dataset = shared_service.http.get(response.headers["Location"]).json()
    assert (dataset["state"], dataset["error"]["type"]) == ("failed", "dataset-missing")
    body = shared_service.request()
    body["dataset"] = {"id": dataset["id"]}
    assert shared_service.http.post("/jobs", json=body).status_code == 422


@pytest.mark.parametrize("what", [".index", "rows.jsonl"])
def test_a_full_artifact_store(service: Service, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The sync of one file fails as it does on a full disk; unit/core/test_artifacts_local.py fills a real one."""

    def full(path: Path) -> None:
        if any(what in file.name for file in path.iterdir()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("app.core.storage.local._sync_directory", full)
    fails(service, service.request(), "storage-failed", str(service.settings.artifacts_path), what, "free space")
    assert not list(service.settings.artifacts_path.rglob(".*"))
