"""A POST that is sent again gets the first answer and does nothing twice."""

from __future__ import annotations

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from sqlalchemy import func, select, text

from app.core.db.scoping import project_sessions
from app.core.db.tables import IdempotentAnswer, Job
from app.core.lifecycle.leases import Waiting
from app.events.repository import after
from app.http import idempotency
from app.http.problems import IdempotencyKeyInUse
from app.jobs import service as jobs

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions
    from tests.integration.conftest import Service


def resources(service: Service) -> Any:
    return service.http.app.state.resources  # type: ignore[attr-defined]


def count_jobs(service: Service) -> int:
    with resources(service).sessions() as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


def key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def test_the_second_request_gets_the_first_answer(service: Service) -> None:
    headers, body = key(), service.request()
    first = service.http.post("/jobs", json=body, headers=headers)
    service.http.post(f"/jobs/{first.json()['id']}/cancel")
    shuffled = dict(reversed(body.items()))
    again = service.http.post("/jobs", json=shuffled, headers=headers)
    assert (again.status_code, again.content) == (202, first.content)
    for name in ("Location", "Retry-After", "Content-Type"):
        assert again.headers[name] == first.headers[name]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert count_jobs(service) == 1
    assert service.http.post("/jobs", json=body, headers=key()).json()["id"] != first.json()["id"]


def test_another_request_with_the_same_key_is_refused(service: Service) -> None:
    headers = key()
    service.http.post("/jobs", json=service.request(), headers=headers)
    for path, body in (("/jobs", service.request(conflict_penalty=0.3)), ("/datasets", service.request())):
        other = service.http.post(path, json=body, headers=headers)
        assert other.status_code == 422
    assert service.http.post("/jobs", json=service.request(seed=7), headers=headers).json()["type"] == (
        "idempotency-key-reused"
    )
    assert count_jobs(service) == 1


def test_a_request_that_failed_may_be_mended_or_sent_again(service: Service) -> None:
    headers = key()
    assert service.http.post("/jobs", json=service.request() | {"name": ""}, headers=headers).status_code == 422
    assert service.http.post("/jobs", json=service.request(), headers=headers).status_code == 202


def test_while_the_first_is_under_way_the_second_is_told_to_wait(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    submit = jobs.submit

    def slowly(*arguments: Any) -> Job:
        begun.set()
        assert go_on.wait(20)
        return submit(*arguments)

    monkeypatch.setattr(jobs, "submit", slowly)
    headers, body = key(), service.request()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(service.http.post, "/jobs", json=body, headers=headers)
        try:
            assert begun.wait(20)
            second = service.http.post("/jobs", json=body, headers=headers)
        finally:
            go_on.set()
        assert (second.status_code, second.json()["type"]) == (409, "idempotency-key-in-use")
        assert int(second.headers["Retry-After"]) > 0
        answer = first.result().content
        assert service.http.post("/jobs", json=body, headers=headers).content == answer
    assert count_jobs(service) == 1


def test_many_at_once_make_one_job(service: Service) -> None:
    headers, body = key(), service.request()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: service.http.post("/jobs", json=body, headers=headers), range(24)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert count_jobs(service) == 1


def test_the_answer_is_kept_if_and_only_if_the_job_is(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies at the commit: neither is there, and the next request makes both."""
    headers, body = key(), service.request()

    def dies(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(idempotency, "keep", dies)
        assert service.http.post("/jobs", json=body, headers=headers).status_code == 500
    assert count_jobs(service) == 0
    assert service.http.post("/jobs", json=body, headers=headers).status_code == 202
    assert count_jobs(service) == 1


def test_every_post_takes_a_key(service: Service) -> None:
    paths = service.http.get("/openapi.json").json()["paths"]
    posts = {path: operations["post"] for path, operations in paths.items() if "post" in operations}
    posts.pop("/files")  # the same file again is the same upload, with or without a key
    assert len(posts) >= 4
    for path, post in posts.items():
        assert "idempotency-key" in [parameter["name"].lower() for parameter in post["parameters"]], path
        for status, kind in (("409", "idempotency-key-in-use"), ("422", "idempotency-key-reused")):
            assert kind in post["responses"][status]["content"]["application/problem+json"]["examples"], path
    dataset = service.http.post("/datasets", json={"uri": service.request()["dataset"]["uri"]}, headers=key()).json()
    job_id = service.submit(service.request())
    for path, body in (
        (f"/datasets/{dataset['id']}/previews", {"model": {"uri": service.model_uri}}),
        (f"/jobs/{job_id}/cancel", None),
    ):
        headers = key()
        first, again = (service.http.post(path, json=body, headers=headers) for _ in range(2))
        assert first.is_success, first.text
        assert again.content == first.content


def test_a_cancellation_is_kept_with_its_answer_or_not_at_all(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = service.submit(service.request())

    def dies(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(idempotency, "keep", dies)
        assert service.http.post(f"/jobs/{job_id}/cancel", headers=key()).status_code == 500
    assert service.job(job_id)["state"] == "queued"
    assert service.http.post(f"/jobs/{job_id}/cancel", headers=key()).json()["state"] == "cancelled"
    assert service.job(job_id)["state"] == "cancelled"


@pytest.mark.parametrize("value", ["", "x" * 256])
def test_a_key_that_cannot_be_is_refused(service: Service, value: str) -> None:
    answer = service.http.post("/jobs", json=service.request(), headers={"Idempotency-Key": value})
    assert answer.status_code == 422


def once(sessions: Sessions, key: str, max_age_s: float = 60) -> idempotency.Once:
    return idempotency.Once(sessions, Unreachable(), max_age_s, key, b"f")  # type: ignore[arg-type]


class Unreachable:
    """A queue that nothing is put into."""


class Document(BaseModel):
    n: int


def answered(once: idempotency.Once, n: int) -> Any:
    return json.loads(bytes(once.answer(lambda _: n, lambda n: idempotency.Answer(Document(n=n), 200)).body))["n"]


def test_a_key_that_another_transaction_holds_is_under_way(sessions: Sessions) -> None:
    """As of a request that another API process has."""

    def while_it_is_under_way(_: Session) -> int:
        with pytest.raises(IdempotencyKeyInUse):
            answered(once(sessions, "a"), 2)
        assert answered(once(sessions, "b"), 3) == 3
        return 1

    once(sessions, "a").answer(while_it_is_under_way, lambda n: idempotency.Answer(Document(n=n), 200))
    assert answered(once(sessions, "a"), 4) == 1


def test_keys_are_each_projects_own_and_are_forgotten(sessions: Sessions) -> None:
    with sessions() as session:
        session.execute(text("INSERT INTO projects (id, name) VALUES (:id, 'other')"), {"id": (other := uuid.uuid4())})
        session.commit()
    assert [answered(once(sessions, "k"), n) for n in (1, 2)] == [1, 1]
    assert answered(once(project_sessions(sessions, other), "k"), 3) == 3
    with sessions() as session:
        session.execute(
            text("UPDATE idempotent_answers SET created_at = :then"), {"then": datetime.now(UTC) - timedelta(hours=1)}
        )
        session.commit()
        idempotency.forget(session, 7200)
        assert session.scalar(select(func.count()).select_from(IdempotentAnswer)) == 2
    assert [answered(once(sessions, "k"), n) for n in (4, 5)] == [4, 4], "an old answer is not given again"
    with sessions() as session:
        idempotency.forget(session, 60)
        assert session.scalar(select(func.count()).select_from(IdempotentAnswer)) == 1


def test_submissions_at_once_are_stored_each_with_its_origin_and_first_event_and_queued(
    service: Service, sessions: Sessions
) -> None:
    bodies = [service.request() | {"name": str(number)} for number in range(6)]
    bodies[2]["dataset"] = {"uri": "file:///etc/passwd", "format": "csv"}

    def post(number: int) -> Any:
        return service.http.post("/jobs", json=bodies[number], headers={"X-Request-ID": f"r{number}"})

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(post, range(6)))
    assert [answer.status_code for answer in answers] == [202, 202, 422, 202, 202, 202]
    taken = {uuid.UUID(answer.json()["id"]): n for n, answer in enumerate(answers) if answer.is_success}
    with sessions() as session:
        stored = {job.id: job for job in session.scalars(select(Job))}
        assert {id_: (job.name, job.origin) for id_, job in stored.items()} == {
            id_: (str(n), {"request_id": f"r{n}"}) for id_, n in taken.items()
        }
        for id_ in stored:
            assert [event.data["state"] for event in after(session, (id_, 0), 10)] == ["queued"]
    assert resources(service).queue.missing([Waiting(Job, id_, 1) for id_ in taken]) == []
