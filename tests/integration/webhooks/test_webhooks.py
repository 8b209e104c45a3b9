"""A job's end is told to a real server: signed, once due, again until it is heard, and never to a private address."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from sqlalchemy import text
from standardwebhooks import Webhook, WebhookVerificationError
from typer.testing import CliRunner

from app.cli import app as cli
from app.core.db.tables import DEFAULT_PROJECT, Job, State
from app.core.lifecycle import leases
from app.core.settings import get_settings
from app.housekeeping.expiry import expire
from app.webhooks import delivery, repository, sending, urls
from app.webhooks.delivery import AT_ONCE, LANE, Delivery
from app.webhooks.signing import secret_of
from tests.integration.deadlines import soon
from tests.integration.proofs.test_proofs import get_proof, prove
from tests.integration.settled import expire_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.core.settings import Settings
    from tests.integration.conftest import Service

SECRET = "a secret of the deployment"


class Receiver:
    """A client's server.

    Attributes:
        heard: Headers and body of each message.
        statuses: What it answers with, one after the other, then 204.
    """

    def __init__(self, certificate: trustme.LeafCert | None = None) -> None:
        self.heard: list[tuple[dict[str, str], str]] = []
        self.statuses: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                receiver.heard.append((dict(self.headers), body))
                status = receiver.statuses.pop(0) if receiver.statuses else 204
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    @contextmanager
    def running(self) -> Iterator[Receiver]:
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().running() as running:
        yield running


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    return service_settings.model_copy(
        update={
            "webhook_secret": SECRET,
            "webhook_allow_private": True,
            "webhook_poll_s": 3600.0,
            "webhook_backoff_s": 0.05,
            "webhook_attempts": 3,
            "webhook_timeout_s": 5.0,
            "reconcile_s": 3600.0,  # it counts jobs that have ended, and a message whose row is held is passed over
        }
    )


def url_of(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.port}/hook?x=1"


def submit(service: Service, url: str) -> str:
    return service.submit(service.request() | {"webhook": {"url": url}, "name": "nightly"})


def sessions(service: Service) -> Any:
    return service.http.app.state.resources.sessions  # type: ignore[attr-defined]


def deliver(sessions: Any, settings: Settings) -> int:
    """Send all that is due now; the number of messages that were tried."""
    delivery = Delivery(sessions, settings)
    tried = delivery.turn()
    delivery.finish()
    return tried


def deliver_all(service: Service) -> int:
    return deliver(sessions(service), service.settings)


def take_due(session: Any, hold_s: float) -> list[repository.Due]:
    return repository.take_due(session, 10, hold_s=hold_s, lane=10, under_way={})


def told_in_the_end(service: Service, job_id: str) -> dict[str, Any]:
    """Deliver until a job's message is heard or given up, and look at what came of it."""
    deadline = time.monotonic() + 20
    while service.job(job_id)["webhook"]["state"] == "pending":
        assert time.monotonic() < deadline
        deliver_all(service)
        time.sleep(0.02)
    return dict(service.job(job_id)["webhook"])


def test_a_final_state_is_told_with_a_signature_that_holds(service: Service, receiver: Receiver) -> None:
    job_id = submit(service, url_of(receiver))
    assert service.job(job_id)["webhook"]["state"] == "waiting"
    assert deliver_all(service) == 0
    service.work()
    assert service.job(job_id)["webhook"]["state"] == "pending"
    assert deliver_all(service) == 1
    assert deliver_all(service) == 0
    ((headers, body),) = receiver.heard
    told = Webhook(secret_of(SECRET, DEFAULT_PROJECT)).verify(body, headers)
    assert told["type"] == "job.succeeded"
    assert (told["data"]["id"], told["data"]["name"], told["data"]["state"]) == (job_id, "nightly", "succeeded")
    for key in (secret_of(SECRET, uuid.uuid4()), secret_of("another secret of all", DEFAULT_PROJECT)):
        with pytest.raises(Exception, match="signature"):
            Webhook(key).verify(body, headers)
    assert headers["Host"] == f"127.0.0.1:{receiver.port}"
    shown = service.job(job_id)["webhook"]
    assert (shown["state"], shown["attempts"], shown["status"]) == ("delivered", 1, 204)
    assert shown["next_attempt_at"] is None


def test_the_end_of_a_proof_is_told_with_its_verdicts(service: Service, receiver: Receiver) -> None:
    proof = prove(service, webhook={"url": url_of(receiver)}, name="nightly")
    assert proof["webhook"]["state"] == "pending"
    assert deliver_all(service) == 1
    ((headers, body),) = receiver.heard
    told = Webhook(secret_of(SECRET, DEFAULT_PROJECT)).verify(body, headers)
    assert told["type"] == "proof.succeeded"
    assert (told["data"]["id"], told["data"]["name"], told["data"]["state"]) == (proof["id"], "nightly", "succeeded")
    (compared,) = proof["comparisons"]
    assert told["data"]["verdicts"] == [{name: compared[name] for name in ("arm", "against", "metric", "verdict")}]
    assert get_proof(service, proof["id"])["webhook"]["state"] == "delivered"


def heard_by(receiver: Receiver, secret: str) -> list[bool]:
    """Whether each message bears a signature that holds for a secret."""
    found = []
    for headers, body in receiver.heard:
        try:
            Webhook(secret).verify(body, headers)
        except WebhookVerificationError:
            found.append(False)
        else:
            found.append(True)
    return found


def end_one(service: Service, receiver: Receiver) -> None:
    """A job ends, and that is told."""
    service.http.post(f"/jobs/{submit(service, url_of(receiver))}/cancel")
    assert deliver_all(service) == 1


def test_a_project_s_secret_is_replaced_while_receivers_have_the_one_before(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPICE_WEBHOOK_SECRET", SECRET)
    get_settings.cache_clear()

    def spice(*arguments: str) -> str:
        done = CliRunner().invoke(cli, ["projects", *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    before = spice("webhook-secret")
    end_one(service, receiver)
    after = spice("replace-webhook-secret", "--overlap-hours", "1")
    assert spice("webhook-secret") == after != before
    end_one(service, receiver)
    with sessions(service)() as session:
        session.execute(text("UPDATE projects SET webhook_overlap_until = now()"))
        session.commit()
    end_one(service, receiver)
    assert heard_by(receiver, before) == [True, True, False]
    assert heard_by(receiver, after) == [False, True, True]
    at_once = spice("replace-webhook-secret", "default", "--overlap-hours", "0")
    end_one(service, receiver)
    assert (heard_by(receiver, after)[-1], heard_by(receiver, at_once)[-1]) == (False, True)
    assert CliRunner().invoke(cli, ["projects", "replace-webhook-secret", "nobody"]).exit_code != 0


def test_the_deployment_s_secret_is_replaced_likewise(service: Service, receiver: Receiver) -> None:
    new = service.settings.model_copy(
        update={"webhook_secret": "another secret of all", "webhook_secret_before": SECRET}
    )
    service.http.post(f"/jobs/{submit(service, url_of(receiver))}/cancel")
    assert deliver(sessions(service), new) == 1
    for deployment_secret in ("another secret of all", SECRET):
        assert heard_by(receiver, secret_of(deployment_secret, DEFAULT_PROJECT)) == [True]


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_every_end_is_told(service: Service, receiver: Receiver, end: str) -> None:
    job_id = submit(service, url_of(receiver))
    if end == "cancelled":
        service.http.post(f"/jobs/{job_id}/cancel")
    else:
        with sessions(service)() as session:
            lease = leases.claim(session, Job, uuid.UUID(job_id), 1, 60)
            assert lease is not None
            assert leases.finish(session, lease, State.FAILED, error={"type": "x", "title": "y"})
            session.commit()
    deliver_all(service)
    assert [json.loads(body)["type"] for _, body in receiver.heard] == [f"job.{end}"]


def test_it_is_sent_again_under_the_same_id_until_it_is_heard(service: Service, receiver: Receiver) -> None:
    receiver.statuses = [500, 307]
    job_id = submit(service, url_of(receiver))
    service.http.post(f"/jobs/{job_id}/cancel")
    told = told_in_the_end(service, job_id)
    assert (told["state"], told["attempts"], told["error"]) == ("delivered", 3, None)
    assert len(receiver.heard) == 3  # the redirect was not followed
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 1


def test_it_is_given_up_in_the_end(service: Service, receiver: Receiver) -> None:
    receiver.statuses = [500] * 10
    job_id = submit(service, url_of(receiver))
    service.http.post(f"/jobs/{job_id}/cancel")
    told = told_in_the_end(service, job_id)
    assert (told["state"], told["attempts"], told["status"]) == ("failed", 3, 500)
    assert "500" in told["error"]
    assert service.job(job_id)["state"] == "cancelled"


def test_many_processes_send_one_message_once(service: Service, receiver: Receiver) -> None:
    for _ in range(5):
        service.http.post(f"/jobs/{submit(service, url_of(receiver))}/cancel")
    threads = [threading.Thread(target=deliver_all, args=(service,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.heard) == 5
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 5


def test_what_a_dead_process_had_taken_is_sent_by_another(service: Service, receiver: Receiver) -> None:
    job_id = submit(service, url_of(receiver))
    service.http.post(f"/jobs/{job_id}/cancel")
    with sessions(service)() as session:
        assert len(take_due(session, 60)) == 1
    assert deliver_all(service) == 0
    with sessions(service)() as session:
        session.execute(text("UPDATE jobs SET webhook_due_at = now() - interval '1 second'"))
        session.commit()
    assert deliver_all(service) == 1
    assert len(receiver.heard) == 1


def test_what_cannot_be_sent_at_all_is_given_up_as_well(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the sender's own is an attempt: else the message would be due for ever."""

    def fails(*_: Any) -> None:
        raise UnicodeError

    monkeypatch.setattr(delivery, "send", fails)
    job_id = submit(service, url_of(receiver))
    service.http.post(f"/jobs/{job_id}/cancel")
    told = told_in_the_end(service, job_id)
    assert (told["state"], told["attempts"], told["error"]) == ("failed", 3, "UnicodeError")


def test_a_job_does_not_expire_before_its_end_is_told(service: Service, receiver: Receiver) -> None:
    job_id = submit(service, url_of(receiver))
    service.http.post(f"/jobs/{job_id}/cancel")
    with sessions(service)() as session:
        session.execute(text("UPDATE jobs SET expires_at = now() - interval '1 second'"))
        session.commit()
    artifacts = service.http.app.state.resources.artifacts  # type: ignore[attr-defined]
    assert expire(sessions(service), artifacts, service.settings) == 0
    assert deliver_all(service) == 1
    assert len(receiver.heard) == 1
    expire_until(service, gone=1)


def test_a_slow_attempt_says_nothing_of_a_later_one(service: Service, receiver: Receiver) -> None:
    """It took longer than it had the message for: another process has it now, and its word counts."""
    job_id = submit(service, url_of(receiver))
    service.http.post(f"/jobs/{job_id}/cancel")
    with sessions(service)() as session:
        (slow,) = take_due(session, 0)
        (quick,) = take_due(session, 0)
        repository.delivered(session, quick, 204)
        repository.failed(session, slow, None, "did not answer", 1.0)
    told = service.job(job_id)["webhook"]
    assert (told["state"], told["attempts"], told["next_attempt_at"]) == ("delivered", 2, None)


def test_a_receiver_that_drips_its_answer_is_left_in_time(service: Service) -> None:
    """Each byte comes soon enough, and the answer never ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not ended.wait(0.05):
                    connection.sendall(b"x: y\r\n")

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        hasty = service.settings.model_copy(update={"webhook_timeout_s": 0.5})
        try:
            told = sending.send(f"http://127.0.0.1:{server.getsockname()[1]}/", "{}", {}, hasty)
        finally:
            ended.set()
            thread.join()
    assert told == (None, "did not answer within 0.5 s")
    assert time.monotonic() - began < soon(5)


def test_a_name_that_is_slow_to_resolve_is_left_in_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def slow(*_: Any, **__: Any) -> Any:
        answered.wait(20)
        return [(2, 1, 6, "", ("127.0.0.1", 1))]

    monkeypatch.setattr(urls.socket, "getaddrinfo", slow)
    hasty = service.settings.model_copy(update={"webhook_timeout_s": 0.5})
    began = time.monotonic()
    told = sending.send("http://hooks.example.org/", "{}", {}, hasty)
    assert time.monotonic() - began < soon(3)
    answered.set()
    assert told == (None, "did not answer within 0.5 s")


class Silent:
    """A server that takes every connection and says nothing until it is told to."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.connections: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.connections.append(self.server.accept()[0])

    def close(self) -> None:
        self.server.close()
        for connection in self.connections:
            connection.close()


def test_the_slow_receivers_of_a_project_hold_up_no_other(service: Service, receiver: Receiver) -> None:
    silent = Silent()
    for _ in range(2 * AT_ONCE // LANE):
        service.http.post(f"/jobs/{submit(service, silent.url)}/cancel")
    delivery = Delivery(sessions(service), service.settings)
    assert delivery.turn() == LANE
    theirs = submit(service, url_of(receiver))
    service.http.post(f"/jobs/{theirs}/cancel")
    with sessions(service)() as session:
        session.execute(text("INSERT INTO projects (id, name) VALUES (:id, 'other')"), {"id": (other := uuid.uuid4())})
        session.execute(
            text("UPDATE jobs SET project_id = :other, webhook_due_at = now() WHERE id = :id"),
            {"other": other, "id": theirs},
        )
        session.commit()
    try:
        began = time.monotonic()
        while not receiver.heard:
            delivery.turn()
            assert time.monotonic() - began < service.settings.webhook_timeout_s, "it waited for the silent ones"
        assert len(silent.connections) <= LANE
    finally:
        silent.close()
        delivery.close()


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/hook",
        "https://localhost/hook",
        "https://[::1]/hook",
        "https://169.254.169.254/latest",
        "https://10.0.0.1/hook",
        "https://[::ffff:127.0.0.1]/hook",
        "http://example.org/hook",
        "https://user:password@example.org/hook",
        "https:///hook",
        "ftp://example.org",
        "https://example.org:99999/",
        "https://exa mple.org/",
        f"https://{64 * 'a'}.example.org/",
        "https://hooks..example.org/",
    ],
)
def test_a_url_that_may_not_be_is_refused(service: Service, url: str) -> None:
    closed = service.settings.model_copy(update={"webhook_allow_private": False})
    with pytest.raises(urls.WebhookRefused):
        urls.check_webhook_url(url, closed)
    status, wrong = sending.send(url, "{}", {}, closed)
    assert status is None
    assert wrong is not None


def test_a_name_that_leads_inside_gets_no_connection(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decided by the address that is connected to, at each attempt: a check of the name would not hold."""
    closed = service.settings.model_copy(update={"webhook_allow_private": False})
    inside = [(2, 1, 6, "", ("127.0.0.1", receiver.port))]
    monkeypatch.setattr(urls.socket, "getaddrinfo", lambda *_, **__: inside)
    status, wrong = sending.send(f"https://hooks.example.org:{receiver.port}/", "{}", {}, closed)
    assert status is None
    assert "not a public address" in str(wrong)
    assert receiver.heard == []


def test_the_certificate_is_that_of_the_name_though_the_address_is_connected_to(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    monkeypatch.setattr(sending, "_tls", lambda: context)
    with Receiver(authority.issue_cert("hooks.example.org")).running() as receiver:
        there = [(2, 1, 6, "", ("127.0.0.1", receiver.port))]
        monkeypatch.setattr(urls, "public_address", lambda *_: "127.0.0.1")
        monkeypatch.setattr(sending, "public_address", lambda *_: there[0][4][0])
        good = sending.send(f"https://hooks.example.org:{receiver.port}/x", "{}", {}, service.settings)
        bad = sending.send(f"https://other.example.org:{receiver.port}/x", "{}", {}, service.settings)
    assert good == (204, None)
    assert receiver.heard[0][0]["Host"] == f"hooks.example.org:{receiver.port}"
    assert bad[0] is None
    assert "certificate" in str(bad[1])


def test_without_a_secret_there_are_no_webhooks(service: Service) -> None:
    off = service.settings.model_copy(update={"webhook_secret": None})
    with pytest.raises(urls.WebhookRefused, match="SPICE_WEBHOOK_SECRET"):
        urls.check_webhook_url("https://example.org/", off)
    answer = service.http.post("/jobs", json=service.request() | {"webhook": {"url": "https://a@b/"}})
    assert [error["field"] for error in answer.json()["errors"]] == ["webhook.url"]
