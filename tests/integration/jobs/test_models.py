"""A job over a model that is elsewhere; and its sketches, which belong to the model and not to the place."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests.integration.conftest import Service, in_environment
from tests.integration.s3_server import S3Server, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.core.settings import Settings


@pytest.fixture
def s3() -> Iterator[S3Server]:
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


def test_what_a_worker_may_not_read_fails_the_job(service: Service, s3: S3Server, tiny_model: Path) -> None:
    upload(s3, tiny_model)
    body = service.request()
    body["model"]["uri"] = "s3://other/tiny"
    answer = service.http.post("/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "model.uri"
    body["model"]["uri"] = "s3://models/tiny"
    job_id = service.submit(body)
    with in_environment(service.settings.model_copy(update={"model_max_bytes": 1000})):
        service.work()
    job = service.job(job_id)
    assert job["state"] == "failed"
    assert job["error"]["type"] == "model-unusable"
    assert "the limit is 1,000" in job["error"]["detail"]


def test_several_chat_templates_without_a_default(service: Service, tiny_model: Path) -> None:
    directory = shutil.copytree(tiny_model, service.directory / "several")
    chatml = (directory / "chat_template.jinja").read_text()
    (directory / "chat_template.jinja").unlink()
    (directory / "additional_chat_templates").mkdir()
    for name in ("brief", "long"):
        (directory / "additional_chat_templates" / f"{name}.jinja").write_text(chatml)
    body = service.request()
    body["model"]["uri"] = directory.as_uri()
    failed = service.run(body)
    assert failed["error"]["type"] == "dataset-chat-template-unknown"
    assert "set model.chat_template to one of 'brief', 'long'" in failed["error"]["detail"]
    body["model"]["chat_template"] = "brief"
    assert service.run(body)["state"] == "succeeded"


def test_quantised_weights_are_named_in_the_result(service: Service, tiny_model: Path) -> None:
    directory = service.directory / "nf4"
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=config).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / name, directory / name)
    body = service.request()
    assert service.run(body)["result"]["weights_stored_as"] is None
    body["model"]["uri"] = directory.as_uri()
    job = service.run(body)
    assert job["state"] == "succeeded", job["error"]
    assert job["result"]["weights_stored_as"] == "nf4"


def test_all_devices_of_a_machine_with_one_give_the_sketches_of_one(service: Service) -> None:
    body = service.request()
    one = service.run(body)
    body["model"]["devices"] = "all"
    found = service.run(body)
    assert found["state"] == "succeeded", found["error"]
    assert found["result"]["sketches"] == one["result"]["sketches"]


def test_a_model_that_does_not_fit_fails_the_job_before_it_is_loaded(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.models.memory.available_memory", lambda _: 10_000)
    error = service.run(service.request())["error"]
    assert (error["type"], error["errors"][0]["field"]) == ("model-too-large", "model.uri")
    assert "cpu has 9.8 KiB left: use a smaller or a quantised proxy model" in error["detail"]
