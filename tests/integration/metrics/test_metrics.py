"""What Prometheus is told, after real jobs on real servers."""

from __future__ import annotations

import json
import math
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.core.db.tables import Job, Shard, State
from app.core.lifecycle import fleet
from app.core.queue import TaskQueue
from app.metrics.fleet import Fleet
from tests.integration.conftest import ROWS, Service

if TYPE_CHECKING:
    from app.core.db.engine import Sessions

DEPLOY = Path(__file__).parents[3] / "deploy"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(service: Service) -> Samples:
    response = service.http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(response.text))
    assert all(family.documentation for family in families if family.name.startswith("spice"))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def alert_queries() -> list[str]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "spice-alerts.yml").read_text(encoding="utf-8"))["groups"]
    queries = [rule["expr"] for group in groups for rule in group["rules"]]
    assert queries
    return queries


def dashboard_queries() -> list[str]:
    panels = json.loads((DEPLOY / "grafana" / "spice.json").read_text(encoding="utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert queries
    return queries


def test_a_job_shows_in_the_metrics(service: Service) -> None:
    job = service.run(service.request())
    assert job["state"] == "succeeded", job["error"]
    samples = scrape(service)
    assert value(samples, "spice_jobs", state="succeeded") == 1
    assert value(samples, "spice_jobs_ended_total", state="succeeded", reason="") == 1
    assert value(samples, "spice_samples_total") == ROWS
    assert value(samples, "spice_tokens_total") == job["result"]["tokens"]
    for stage, seconds in job["result"]["seconds"].items():
        assert value(samples, "spice_stage_duration_seconds_count", stage=stage) == 1
        assert math.isclose(value(samples, "spice_stage_duration_seconds_sum", stage=stage), seconds)
        buckets = [
            amount
            for (name, labels), amount in samples.items()
            if name == "spice_stage_duration_seconds_bucket" and dict(labels)["stage"] == stage
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == 1
    assert value(samples, "spice_queue_depth", queue="selection") == 0
    assert value(samples, "spice_http_request_duration_seconds_count", method="POST", route="/jobs", status="202") == 1
    exported = {(name, label) for name, labels in samples for label, _ in labels} | {(name, "") for name, _ in samples}
    for query in [*alert_queries(), *dashboard_queries()]:
        for name, matchers in re.findall(r"\b(spice_\w+)(?:\{([^}]*)\})?", query):
            assert (name, "") in exported, query
            assert all((name, label) in exported for label in re.findall(r"(\w+)=", matchers)), query
    assert value(samples, "spice_up", server="postgres") == value(samples, "spice_up", server="redis") == 1


def test_a_job_is_counted_once_however_often_is_looked(service: Service) -> None:
    service.run(service.request())
    bad = service.write_dataset([{"prompt": "q", "response": ""}] * 10, "bad.jsonl")
    failed = service.run(service.request(bad))
    reason = failed["error"]["type"]
    for _ in range(3):
        samples = scrape(service)
        assert value(samples, "spice_jobs_ended_total", state="failed", reason=reason) == 1
        assert value(samples, "spice_jobs_ended_total", state="succeeded", reason="") == 1


def test_a_job_that_is_deleted_is_counted_all_the_same(service: Service) -> None:
    """Before anybody has looked, and after: once each."""
    for looks_before in (False, True):
        job = service.run(service.request())
        if looks_before:
            scrape(service)
        assert service.http.delete(f"/jobs/{job['id']}").status_code == 204
    samples = scrape(service)
    assert value(samples, "spice_jobs", state="succeeded") == 0
    assert value(samples, "spice_jobs_ended_total", state="succeeded", reason="") == 2
    for stage in job["result"]["seconds"]:
        assert value(samples, "spice_stage_duration_seconds_count", stage=stage) == 2


def test_what_waits_shows_with_its_age_and_who_is_there(service: Service, sessions: Sessions) -> None:
    service.submit(service.request())
    with sessions() as session:
        job = Job(request={}, state=State.RUNNING)
        session.add(job)
        session.flush()
        session.add(Shard(job_id=job.id, number=0, samples=1))
        rates = {"done": 1, "rate": 3.5, "tokens_per_s": 70.0}
        session.add(Shard(job_id=job.id, number=1, samples=1, state=State.RUNNING, progress=rates))
        session.commit()
        fleet.appear(session, "gpu-1:7", ["gradients"])
        fleet.appear(session, "gpu-1:7", ["gradients"])
        fleet.appear(session, "cpu-1:8", ["selection", "gradients"])
    samples = scrape(service)
    assert value(samples, "spice_queue_depth", queue="selection") == 1
    assert value(samples, "spice_queue_depth", queue="gradients") == 1
    assert 0 < value(samples, "spice_queue_oldest_seconds", queue="selection") < 60
    assert value(samples, "spice_rq_messages", queue="selection") == 1
    assert value(samples, "spice_workers", queue="gradients") == 2
    assert value(samples, "spice_workers", queue="selection") == 1
    assert value(samples, "spice_samples_per_second") == 3.5
    assert value(samples, "spice_tokens_per_second") == 70.0
    with sessions() as session:
        fleet.leave(session, "cpu-1:8")
    assert value(scrape(service), "spice_workers", queue="selection") == 0


def test_labels_are_few_whatever_is_asked(service: Service) -> None:
    before = len(scrape(service))
    for _ in range(20):
        service.http.get(f"/jobs/{uuid.uuid4()}")
        service.http.get(f"/{uuid.uuid4()}")
        service.http.request(f"M{uuid.uuid4().hex}", "/jobs")
    samples = scrape(service)
    assert len(samples) - before < 100
    assert (
        value(samples, "spice_http_request_duration_seconds_count", method="GET", route="/jobs/{job_id}", status="404")
        == 20
    )
    assert (
        value(samples, "spice_http_request_duration_seconds_count", method="GET", route="unknown", status="404") == 20
    )
    text = " ".join(label for _, labels in samples for _, label in labels)
    assert not any(len(word) >= 32 for word in text.split()), "no ids"


def test_a_server_that_is_away_is_told_and_the_rest_is_there(service: Service, sessions: Sessions) -> None:
    nowhere = TaskQueue(service.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    found: dict[str, Any] = {family.name: family for family in Fleet(sessions, nowhere).collect()}
    assert {sample.labels["server"]: sample.value for sample in found["spice_up"].samples} == {
        "postgres": 1,
        "redis": 0,
    }
    assert "spice_queue_depth" in found
    assert "spice_rq_messages" not in found


def test_openmetrics_is_spoken_where_it_is_asked_for(service: Service) -> None:
    response = service.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/readyz"])
def test_ready_names_every_part_with_its_remedy(service: Service, sessions: Sessions, path: str) -> None:
    checks = {check["name"]: check for check in service.http.get(path).json()["checks"]}
    assert list(checks) == [
        *("postgres", "migrations", "redis", "artifacts"),
        *("reconciler", "retention", "expiry", "webhooks"),
        *("worker selection", "worker gradients", "worker proofs"),
    ]
    assert all(checks[name]["ok"] for name in ("postgres", "migrations", "redis", "artifacts"))
    assert not checks["worker gradients"]["ok"]
    assert "spice worker" in checks["worker gradients"]["remedy"]
    with sessions() as session:
        fleet.appear(session, "gpu-1:7", ["gradients"])
    checks = {check["name"]: check for check in service.http.get(path).json()["checks"]}
    assert checks["worker gradients"] == {
        "name": "worker gradients",
        "ok": True,
        "required": False,
        "detail": "1 alive",
        "remedy": None,
    }
