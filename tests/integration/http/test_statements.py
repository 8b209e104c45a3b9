"""How many statements an endpoint makes: as many for a full table as for an empty one, and few."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, event, insert

from app.core.db.tables import Job, State
from app.housekeeping.reconciler import reconcile
from tests.integration.conftest import Service, real_rows
from tests.integration.keys import make_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.core.db.engine import Sessions
    from app.core.settings import Settings

JOBS = 60


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that are executed meanwhile, but for those of threads that look now and then."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    rarely = {"reconcile_s": 3600.0, "webhook_poll_s": 3600.0, "events_poll_s": 60.0}
    return service_settings.model_copy(update={"auth": "keys", **rarely})


def test_a_poll_is_one_statement_and_a_page_does_not_grow_with_its_jobs(service: Service, sessions: Sessions) -> None:
    service.http.headers.update(make_key(sessions, "default"))
    job_id = service.submit(service.request())
    with statements() as seen:
        service.job(job_id)
    assert len(seen) == 1, seen
    with statements() as few:
        service.http.get("/jobs", params={"limit": 500})
    with sessions() as session:
        request = service.request()
        states = [State.QUEUED, State.RUNNING, State.CANCELLED]
        session.execute(insert(Job), [{"request": request, "state": states[n % 3]} for n in range(JOBS)])
        session.commit()
    with statements() as many:
        assert len(service.http.get("/jobs", params={"limit": 500}).json()["items"]) == JOBS + 1
    assert len(many) == len(few) <= 3, many


def test_a_submission_is_few_statements(service: Service, sessions: Sessions) -> None:
    service.http.headers.update(make_key(sessions, "search"))
    service.http.get("/jobs")  # the key is known from here on
    body = service.request()
    with statements() as seen:
        service.submit(body)
    assert len(seen) <= 2, seen
    dataset = service.http.post("/datasets", json={"uri": service.write_dataset(real_rows())}).json()
    with statements() as seen:
        service.submit(body | {"dataset": {"id": dataset["id"]}})
    assert len(seen) <= 3, seen


def test_a_look_of_the_reconciler_at_an_idle_service_is_few_statements(service: Service, sessions: Sessions) -> None:
    """Every API process looks every few seconds: once for all tables that workers serve, not once for each."""
    queue = service.http.app.state.resources.queue  # type: ignore[attr-defined]
    with statements() as seen:
        assert reconcile(sessions, queue, service.settings) == 0
    assert len(seen) <= 13, seen
