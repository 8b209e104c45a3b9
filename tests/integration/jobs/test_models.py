"""A job over a model that is elsewhere; and its sketches, which belong to the model and not to the place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from app.core.settings import get_settings
from tests.integration.conftest import Service, environment
from tests.integration.s3_server import CREDENTIALS, S3Server, s3_server
from workers.runtime.context import current_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.core.settings import Settings


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with s3_server() as server:
        server.client.create_bucket(Bucket="models")
        yield server


@pytest.fixture
def service_settings(service_settings: Settings, s3: S3Server) -> Settings:
    return service_settings.model_copy(update={"s3_endpoint_url": s3.url, "s3_buckets": ("models",)})


def upload(s3: S3Server, directory: Path) -> None:
    for file in directory.iterdir():
        s3.client.put_object(Bucket="models", Key=f"tiny/{file.name}", Body=file.read_bytes())


def test_a_model_in_a_bucket(service: Service, s3: S3Server, tiny_model: Path) -> None:
    upload(s3, tiny_model)
    body = service.request()
    first = service.run(body)
    body["model"]["uri"] = "s3://models/tiny"
    elsewhere = service.run(body)
    assert elsewhere["state"] == "succeeded", elsewhere["error"]
    assert elsewhere["result"]["sketches"] == first["result"]["sketches"]
    assert elsewhere["result"]["sketches_reused"]

    config = json.loads((tiny_model / "config.json").read_text())
    s3.client.put_object(
        Bucket="models", Key="tiny/config.json", Body=json.dumps(config | {"rms_norm_eps": 1e-3}).encode()
    )
    changed = service.run(body)
    assert changed["state"] == "succeeded", changed["error"]
    assert changed["result"]["sketches"] != first["result"]["sketches"]


def test_what_a_worker_may_not_read_fails_the_job(
    service: Service, s3: S3Server, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(s3, tiny_model)
    body = service.request()
    body["model"]["uri"] = "s3://other/tiny"
    answer = service.http.post("/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "model.uri"
    body["model"]["uri"] = "s3://models/tiny"
    job_id = service.submit(body)
    for name, value in environment(service.settings.model_copy(update={"model_max_bytes": 1000})).items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    current_context.cache_clear()
    service.work()
    job = service.job(job_id)
    assert job["state"] == "failed"
    assert job["error"]["type"] == "model-unusable"
    assert "the limit is 1,000" in job["error"]["detail"]
