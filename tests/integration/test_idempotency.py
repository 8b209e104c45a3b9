"""A POST that is sent again gets the first answer and does nothing twice."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select, text

from app.core.db.scoping import project_sessions
from app.core.db.tables import IdempotentAnswer, Job
from app.http import idempotent_answers
from app.jobs import service as jobs

if TYPE_CHECKING:
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
        patched.setattr(idempotent_answers, "keep", dies)
        assert service.http.post("/jobs", json=body, headers=headers).status_code == 500
    assert count_jobs(service) == 0
    assert service.http.post("/jobs", json=body, headers=headers).status_code == 202
    assert count_jobs(service) == 1


def test_every_post_takes_a_key(service: Service) -> None:
    paths = service.http.get("/openapi.json").json()["paths"]
    posts = {path: operations["post"] for path, operations in paths.items() if "post" in operations}
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
        patched.setattr(idempotent_answers, "keep", dies)
        assert service.http.post(f"/jobs/{job_id}/cancel", headers=key()).status_code == 500
    assert service.job(job_id)["state"] == "queued"
    assert service.http.post(f"/jobs/{job_id}/cancel", headers=key()).json()["state"] == "cancelled"
    assert service.job(job_id)["state"] == "cancelled"


@pytest.mark.parametrize("value", ["", "x" * 256])
def test_a_key_that_cannot_be_is_refused(service: Service, value: str) -> None:
    answer = service.http.post("/jobs", json=service.request(), headers={"Idempotency-Key": value})
    assert answer.status_code == 422


def test_a_key_that_another_transaction_holds_is_not_held(sessions: Sessions) -> None:
    """As of a request that another API process has."""
    with sessions() as one, sessions() as other:
        assert idempotent_answers.lock(one, ["a", "b"]) == {"a", "b"}
        assert idempotent_answers.lock(other, ["b", "c"]) == {"c"}
        one.rollback()
        assert idempotent_answers.lock(other, ["a", "b", "c"]) == {"a", "b", "c"}


def test_keys_are_each_projects_own_and_are_forgotten(sessions: Sessions) -> None:
    with sessions() as session:
        session.execute(text("INSERT INTO projects (id, name) VALUES (:id, 'other')"), {"id": (other := uuid.uuid4())})
        session.commit()
    with sessions() as session:
        given = idempotent_answers.Given("k", b"f", status=202, headers={"Location": "/a"}, body="{}")
        idempotent_answers.keep(session, [given])
        session.commit()
        assert idempotent_answers.find(session, ["k", "l"], 60) == {"k": given}
    with project_sessions(sessions, other)() as session:
        assert idempotent_answers.lock(session, ["k"]) == {"k"}
        assert idempotent_answers.find(session, ["k"], 60) == {}
    with sessions() as session:
        session.execute(
            text("UPDATE idempotent_answers SET created_at = :then"), {"then": datetime.now(UTC) - timedelta(hours=1)}
        )
        session.commit()
        assert idempotent_answers.find(session, ["k"], 60) == {}
        session.rollback()
        idempotent_answers.forget(session, 7200)
        assert session.scalar(select(func.count()).select_from(IdempotentAnswer)) == 1
        idempotent_answers.forget(session, 60)
        assert session.scalar(select(func.count()).select_from(IdempotentAnswer)) == 0
