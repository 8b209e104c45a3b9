"""An OpenLineage server is told of each job's start and end, with dataset, model and subset by hash."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from app.core.db.engine import make_engine, make_sessions
from app.core.db.tables import LineageEvent
from app.housekeeping.lineage import send_due

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.core.settings import Settings
    from tests.integration.conftest import Service


class Receiver:
    """A server that keeps what is sent to it, and answers as it is told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status = 201
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.status < 300:
                    receiver.events.append(json.loads(body))
                    receiver.keys.append(self.headers["Authorization"])
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/v1/lineage"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def service_settings(service_settings: Settings, receiver: Receiver) -> Settings:
    """With a server for lineage, which is told by the tests and not by the API's loop."""
    return service_settings.model_copy(
        update={"lineage_url": receiver.url, "lineage_key": "secret-key", "lineage_namespace": "team"}
    )


@pytest.fixture(autouse=True)
def _no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.housekeeping.lineage.EVERY_S", 3600.0)


def sent(service: Service) -> int:
    engine = make_engine(service.settings)
    sessions = make_sessions(engine)
    count = sum(iter(lambda: send_due(sessions, service.settings), 0))
    engine.dispose()
    return count


def test_a_jobs_start_and_success_are_told_with_hashes(service: Service, receiver: Receiver) -> None:
    job = service.run({**service.request(), "name": "nightly"})
    sent(service)
    start, complete = (event for event in receiver.events if event["run"]["runId"] == job["id"])
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert (start["job"]["namespace"], start["job"]["name"]) == ("team", "nightly")
    assert start["eventTime"] <= complete["eventTime"]
    dataset, model = complete["inputs"]
    assert (dataset["namespace"], dataset["name"]) == ("file", job["dataset"]["uri"].removeprefix("file://"))
    assert dataset["facets"]["version"]["datasetVersion"] == job["result"]["fingerprint"]
    assert model["facets"]["version"]["datasetVersion"] == f"sha256:{job['result']['model_revision']}"
    (subset,) = complete["outputs"]
    picks = service.http.get(f"/jobs/{job['id']}/subset?format=json").json()["indices"]
    hashed = hashlib.sha256("".join(f"{row}\n" for row in picks).encode()).hexdigest()
    assert subset["facets"]["version"]["datasetVersion"] == f"sha256:{hashed}"
    assert subset["outputFacets"]["outputStatistics"]["rowCount"] == len(picks)
    assert set(receiver.keys) == {"Bearer secret-key"}
    for event in (start, complete):
        assert event["schemaURL"].endswith("OpenLineage.json#/$defs/RunEvent")
        assert event["producer"].startswith("urn:spice-select:")


def test_a_failure_and_a_cancel_are_told_and_an_event_waits_while_the_server_is_away(
    service: Service, receiver: Receiver
) -> None:
    receiver.status = 503
    failed = service.run(service.request(budget={"count": 10_000}))
    cancelled = service.submit(service.request())
    assert service.http.post(f"/jobs/{cancelled}/cancel").status_code == 200
    assert sent(service) == 0
    receiver.status = 200
    engine = make_engine(service.settings)
    with make_sessions(engine)() as session:
        session.query(LineageEvent).update({LineageEvent.due_at: LineageEvent.at})
        session.commit()
    engine.dispose()
    assert sent(service) == 3
    told = {(event["run"]["runId"], event["eventType"]): event for event in receiver.events}
    assert set(told) == {(failed["id"], "START"), (failed["id"], "FAIL"), (cancelled, "ABORT")}
    said = told[failed["id"], "FAIL"]["run"]["facets"]["errorMessage"]["message"]
    assert said.startswith("budget-too-large: ")
    assert told[failed["id"], "FAIL"]["outputs"] == []
