"""One request, from the API through the queue into the worker: in the log, and as a trace."""

from __future__ import annotations

import http.server
import io
import json
import logging
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.core.telemetry import tracing
from app.core.telemetry.logs import QUIET, JsonLines, WithOrigin
from tests.integration.conftest import Service, real_rows
from tests.integration.keys import make_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from app.core.db.engine import Sessions
    from app.core.settings import Settings

SECRET_ROW = "only-in-a-row-of-the-dataset"


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    return service_settings.model_copy(update={"auth": "keys", "https_allow_private": True})


@pytest.fixture
def said() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The JSON lines that all of this process has logged, at the level that tells most."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(WithOrigin())
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


def test_the_requests_id_is_on_the_workers_lines_and_no_secret_on_any(
    service: Service, sessions: Sessions, said: Callable[[], list[dict[str, Any]]]
) -> None:
    key = make_key(sessions, "search")
    service.http.headers.update(key)
    rows = real_rows()
    rows[5] = {"prompt": SECRET_ROW, "response": f"{SECRET_ROW}!"}
    rows[6] = {"prompt": SECRET_ROW, "response": " "}
    body = service.request(service.write_dataset(rows))
    response = service.http.post("/jobs?note=in-the-query", json=body, headers={"X-Request-ID": "ci-run:17"})
    assert response.headers["X-Request-ID"] == "ci-run:17"
    service.work()
    assert service.job(response.json()["id"])["state"] == "succeeded"

    lines = [line for line in said() if not line["logger"].startswith("http")]  # the tests' own client
    access = [line for line in lines if line["logger"] == "app.access_log" and line["method"] == "POST"]
    assert [(line["status"], line["request_id"], line["level"]) for line in access] == [(202, "ci-run:17", "info")]
    begun = [line for line in lines if line["logger"].startswith("workers.") and "job_id" in line]
    assert begun
    assert {(line["request_id"], line["job_id"]) for line in begun} == {("ci-run:17", response.json()["id"])}
    shards = [line for line in lines if "shard_id" in line]
    assert shards
    assert {line["request_id"] for line in shards} == {"ci-run:17"}
    everything = json.dumps(lines)
    assert SECRET_ROW not in everything
    assert "in-the-query" not in everything
    assert key["Authorization"].split("_", 2)[2] not in everything
    assert service.settings.database_url.split(":")[2].split("@")[0] not in everything


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 101, "line\tbreak", "é"])
def test_an_id_that_is_not_fit_for_a_log_is_replaced(service: Service, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given.encode()}
    made = service.http.get("/healthz", headers=headers).headers["X-Request-ID"]
    assert made != given
    assert len(made) == 32


def test_an_error_is_one_line_with_its_stack(said: Callable[[], list[dict[str, Any]]]) -> None:
    try:
        json.loads("{")
    except ValueError:
        logging.getLogger("test").exception("it failed: %s", 7)
    [line] = said()
    assert (line["level"], line["logger"], line["message"]) == ("error", "test", "it failed: 7")
    assert "JSONDecodeError: " in " ".join(line["exc_info"])
    assert line["time"].endswith("Z")


@pytest.mark.small_shards
def test_a_trace_goes_from_the_request_through_the_queue_to_every_stage(service: Service, sessions: Sessions) -> None:
    exporter = InMemorySpanExporter()
    service.http.headers.update(make_key(sessions, "search"))
    tracing.start("test", exporter)
    try:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        job_id = service.http.post("/jobs", json=service.request(), headers={"traceparent": parent}).json()["id"]
        service.work()
    finally:
        tracing.stop()
    spans = [span for span in exporter.get_finished_spans() if span.name != "GET /jobs/{job_id}"]
    by_name: dict[str, list[Any]] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span)
    [request] = by_name["POST /jobs"]
    assert f"{request.context.trace_id:032x}" == parent.split("-")[1]
    assert f"{request.parent.span_id:016x}" == parent.split("-")[2]
    assert request.attributes["http.response.status_code"] == 202
    assert {span.context.trace_id for span in spans} == {request.context.trace_id}
    turns = by_name["work jobs"]
    assert len(turns) == 2, "once to make shards, once to select"
    assert {turn.parent.span_id for turn in turns} == {request.context.span_id}
    assert {turn.attributes["spice.jobs.id"] for turn in turns} == {job_id}
    assert len(by_name["work shards"]) == 4
    assert {shard.parent.span_id for shard in by_name["work shards"]} == {turns[0].context.span_id}
    stages = {stage.parent.span_id for name in ("stage reading", "stage selecting") for stage in by_name[name]}
    assert stages == {turn.context.span_id for turn in turns}


class Forbidding(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def forbidding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an HTTPS server that refuses everybody."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forbidding) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_signature_of_a_presigned_url_is_in_no_error_log_or_trace(
    service: Service, sessions: Sessions, said: Callable[[], list[dict[str, Any]]], forbidding: str
) -> None:
    exporter = InMemorySpanExporter()
    service.http.headers.update(make_key(sessions, "search"))
    tracing.start("test", exporter)
    try:
        job = service.run(service.request(f"{forbidding}/rows.jsonl?X-Amz-Signature=5a1f"))
    finally:
        tracing.stop()
    assert job["error"]["type"] == "dataset-http-status"
    lines = [line for line in said() if not line["logger"].startswith(QUIET)]
    assert [line["message"] for line in lines if f"{forbidding}/rows.jsonl answered 403" in line["message"]]
    spans = exporter.get_finished_spans()
    [turn] = [span for span in spans if span.name == "stage reading"]
    assert turn.attributes["error.type"] == "DatasetError"
    assert turn.status.status_code is StatusCode.ERROR
    for told in (json.dumps(job["error"]), json.dumps(lines), "".join(span.to_json() for span in spans)):
        assert "5a1f" not in told


def test_values_of_statements_are_in_no_error(sessions: Sessions) -> None:
    with sessions() as session, pytest.raises(DBAPIError) as failed:
        session.execute(text("SELECT CAST(:uri AS integer) / 0"), {"uri": "7351"})
    assert "7351" not in str(failed.value)


def test_without_tracing_nothing_is_noted(service: Service, sessions: Sessions) -> None:
    from sqlalchemy import select  # noqa: PLC0415

    from app.core.db.tables import Job  # noqa: PLC0415

    service.http.headers.update(make_key(sessions, "search"))
    service.http.post("/jobs", json=service.request(), headers={"X-Request-ID": "one"})
    with sessions() as session:
        assert session.scalars(select(Job.origin)).all() == [{"request_id": "one"}]
