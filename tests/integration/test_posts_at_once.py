"""Submissions that come at once share a transaction, and none hears or suffers anything of the others."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from app.core.db.tables import Job
from app.core.lifecycle.leases import Waiting
from app.core.queue import TaskQueue
from app.events.repository import after
from app.http import posts
from app.jobs import service as jobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.orm import Session

    from app.core.contracts.job_request import JobRequest
    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from tests.integration.conftest import Service

MANY = 6


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    return service_settings.model_copy(update={"reconcile_s": 3600.0})


@contextmanager
def groups(monkeypatch: pytest.MonkeyPatch, many: int = MANY) -> Iterator[list[int]]:
    """The sizes of the groups; the first waits until the others are there, which so are one."""
    sizes: list[int] = []
    committed, arrived, there = posts._committed, threading.Semaphore(0), posts.Posts.in_group

    def noted(sessions: Any, group: Sequence[Any], *rest: Any) -> Any:
        if not sizes:
            for _ in range(many):
                assert arrived.acquire(timeout=20)
        sizes.append(len(group))
        return committed(sessions, group, *rest)

    async def counted(*arguments: Any) -> Any:
        arrived.release()
        return await there(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(posts, "_committed", noted)
        patched.setattr(posts.Posts, "in_group", counted)
        yield sizes


def post_all(service: Service, bodies: Sequence[dict[str, Any]], headers: Sequence[dict[str, str]] = ()) -> list[Any]:
    """The answers to bodies that are sent at once."""

    def post(number: int) -> Any:
        return service.http.post("/jobs", json=bodies[number], headers=headers[number] if headers else {})

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(post, range(len(bodies))))


def test_a_group_is_stored_with_its_events_and_origins_and_queued(
    service: Service, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [service.request() | {"name": str(number)} for number in range(MANY)]
    with groups(monkeypatch) as sizes:
        answers = post_all(service, bodies, [{"X-Request-ID": f"r{number}"} for number in range(MANY)])
    assert sum(sizes) == MANY
    assert max(sizes) > 1, sizes
    assert [(answer.status_code, answer.json()["name"]) for answer in answers] == [
        (202, str(number)) for number in range(MANY)
    ]
    with sessions() as session:
        stored = {job.id: job for job in session.scalars(select(Job))}
        for number, answer in enumerate(answers):
            job = stored.pop(uuid.UUID(answer.json()["id"]))
            assert (job.name, job.origin) == (str(number), {"request_id": f"r{number}"})
            assert answer.headers["Location"] == f"/jobs/{job.id}"
            assert [event.data["state"] for event in after(session, (job.id, 0), 10)] == ["queued"]
    assert not stored
    waiting = [Waiting(Job, uuid.UUID(answer.json()["id"]), 1) for answer in answers]
    queue = TaskQueue(service.settings)
    assert queue.missing(waiting) == []
    queue.close()


def test_one_that_cannot_be_leaves_the_others_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [service.request() | {"name": str(number)} for number in range(MANY)]
    bodies[2]["dataset"] = {"uri": "file:///etc/passwd", "format": "csv"}
    with groups(monkeypatch) as sizes:
        answers = post_all(service, bodies)
    assert max(sizes) > 1, sizes
    assert [answer.status_code for answer in answers] == [202, 202, 422, 202, 202, 202]
    assert len(service.http.get("/jobs").json()["items"]) == MANY - 1


def test_one_that_postgres_refuses_is_refused_alone_and_the_others_are_stored_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = jobs.submit

    def of_no_dataset(session: Session, settings: Settings, request: JobRequest) -> Job:
        job = submit(session, settings, request)
        if job.name == "2":
            job.dataset_id = uuid.uuid4()
        return job

    bodies = [service.request() | {"name": str(number)} for number in range(MANY)]
    monkeypatch.setattr(jobs, "submit", of_no_dataset)
    with groups(monkeypatch) as sizes:
        answers = post_all(service, bodies)
    assert max(sizes) > 1, sizes
    assert [answer.status_code for answer in answers] == [202, 202, 500, 202, 202, 202]
    names = [job["name"] for job in service.http.get("/jobs").json()["items"]]
    assert sorted(names) == ["0", "1", "3", "4", "5"]


def test_keys_of_a_group_are_kept_each_with_its_answer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [service.request() | {"name": str(number)} for number in range(MANY)]
    headers = [{"Idempotency-Key": str(uuid.uuid4())} for _ in range(MANY)]
    again = service.http.post("/jobs", json=bodies[3], headers=headers[3])
    service.http.post("/jobs", json=bodies[0], headers=headers[4])
    with groups(monkeypatch) as sizes:
        answers = post_all(service, bodies, headers)
    assert max(sizes) > 1, sizes
    assert [answer.status_code for answer in answers] == [202, 202, 202, 202, 422, 202]
    assert (answers[3].content, answers[3].headers["Idempotency-Replayed"]) == (again.content, "true")
    assert answers[4].json()["type"] == "idempotency-key-reused"
    for number in (0, 1, 2, 5):
        kept = service.http.post("/jobs", json=bodies[number], headers=headers[number])
        assert kept.content == answers[number].content
    assert len(service.http.get("/jobs").json()["items"]) == MANY
