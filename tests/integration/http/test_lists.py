"""Lists of jobs and datasets: filters, order, pages; by indexes, and in as many statements for many rows as for one."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text

from app.core.contracts.job_request import EXAMPLE_REQUEST
from app.core.db.scoping import project_sessions
from app.core.db.tables import DEFAULT_PROJECT, Dataset, Job, State
from app.datasets.repository import datasets
from app.http import lists
from app.jobs.repository import jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.core.db.engine import Sessions
    from tests.integration.conftest import Service

MANY = 10_000
URI = "file:///data/train-7.jsonl"


@contextmanager
def counted(service: Service) -> Iterator[list[str]]:
    """The statements of the service inside the block."""
    statements: list[str] = []
    sessions = service.http.app.state.resources.sessions  # type: ignore[attr-defined]
    with sessions() as session:
        engine = session.get_bind()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def fill(sessions: Sessions) -> None:
    """10,000 jobs and datasets, with a tenth of the second for each of ten names."""
    with sessions() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))  # no trigger tells of each row
        session.execute(
            text("""
            INSERT INTO datasets (id, uri, name, metadata, state, created_at)
            SELECT gen_random_uuid(), format('file:///data/train-%s.jsonl', i % 100), format('set-%s', i % 1000),
                jsonb_build_object('team', format('team-%s', i % 500)), 'succeeded', now() - i * interval '1 minute'
            FROM generate_series(1, :many) i
            """),
            {"many": MANY},
        )
        session.execute(
            text("""
            INSERT INTO jobs (id, request, name, metadata, state, created_at, dataset_id)
            SELECT gen_random_uuid(),
                jsonb_build_object('dataset', jsonb_build_object(
                    'uri', format('file:///data/train-%s.jsonl', i % 100))),
                format('nightly-%s', i % 1000), jsonb_build_object('team', format('team-%s', i % 500)),
                (ARRAY['succeeded', 'succeeded', 'succeeded', 'failed'])[i % 4 + 1], now() - i * interval '1 minute',
                used.id
            FROM generate_series(1, :many) i
            JOIN (SELECT id, row_number() OVER (ORDER BY created_at) AS place FROM datasets) AS used
                ON used.place = i % 50 + 1
            """),
            {"many": MANY},
        )
        session.commit()
        session.execute(text("ANALYZE"))


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_every_filter_goes_by_an_index(sessions: Sessions) -> None:
    fill(sessions)
    with sessions() as session:
        dataset_id = session.query(Job.dataset_id).limit(1).scalar()
    recent = datetime.now(UTC) - timedelta(hours=1)
    statements = {
        "all": lists.listed(Job),
        "state": lists.listed(Job, states=[State.FAILED]),
        "states": lists.listed(Job, states=[State.FAILED, State.CANCELLED]),
        "name": lists.listed(Job, name="nightly-7"),
        "prefix": lists.listed(Job, name_prefix="nightly-77"),
        "id": lists.listed(Job, id_prefix="3"),
        "metadata": lists.listed(Job, metadata={"team": "team-7"}),
        "created": lists.listed(Job, created_after=recent, created_before=datetime.now(UTC)),
        "dataset": jobs(dataset_id=dataset_id),
        "dataset uri": jobs(dataset_uri=URI),
        "datasets": lists.listed(Dataset),
        "datasets by name": lists.listed(Dataset, name="set-7"),
        "datasets by prefix": lists.listed(Dataset, name_prefix="set-77"),
        "datasets by metadata": lists.listed(Dataset, metadata={"team": "team-7"}),
        "datasets by uri": datasets(uri=URI),
    }
    with project_sessions(sessions, DEFAULT_PROJECT)() as session:
        plans: list[str] = []

        def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if statement.startswith("SELECT") and not statement.startswith("SELECT 1"):
                cursor.execute(f"EXPLAIN {statement}", parameters)
                plans.append("\n".join(row[0] for row in cursor.fetchall()))

        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", explain)
        for name, statement in statements.items():
            plans.clear()
            found = session.scalars(statement.limit(50)).all()
            assert found, name
            assert "Index" in plans[0], f"{name}\n{plans[0]}"
            assert not re.search(r"Seq Scan on (jobs|datasets)", plans[0]), f"{name}\n{plans[0]}"
        event.remove(engine, "before_cursor_execute", explain)


def test_filters_are_alternatives_of_states_and_otherwise_all_hold(service: Service) -> None:
    def submit(name: str, **metadata: str) -> str:
        return service.submit(service.request() | {"name": name, "metadata": metadata})

    first = submit("nightly-1", team="search", tier="gold")
    second = submit("nightly_2", team="search")
    third = submit("weekly", team="ads")
    service.http.post(f"/jobs/{first}/cancel")

    def found(**params: Any) -> list[str]:
        return ids(service.http.get("/jobs", params=params))

    assert found() == [third, second, first]
    assert found(state="cancelled") == [first]
    assert found(state=["cancelled", "queued"]) == [third, second, first]
    assert found(name="nightly-1") == [first]
    assert found(name="nightly") == []
    assert found(name_prefix="nightly") == [second, first]
    assert found(name_prefix="nightly_") == [second]  # a wildcard of SQL is none here
    assert [found(id_prefix=one[:18]) for one in (first, second)] == [[first], [second]]
    assert found(id_prefix=first) == [first]
    counted = service.http.get("/jobs", params={"name_prefix": "nightly", "limit": 1, "total": "true"}).json()
    assert (len(counted["items"]), counted["total"]) == (1, 2)
    assert service.http.get("/jobs").json()["total"] is None
    assert found(**{"metadata.team": "search"}) == [second, first]
    assert found(**{"metadata.team": "search", "metadata.tier": "gold"}) == [first]
    assert found(**{"metadata.team": "search", "state": "queued"}) == [second]
    made = service.job(second)["created_at"]
    assert found(created_after=made) == [third]
    assert found(created_before=made) == [first]
    uri = service.job(first)["dataset"]["uri"]
    assert found(dataset_uri=uri) == [third, second, first]
    assert found(dataset_uri=uri + "x") == []


def test_jobs_are_found_by_their_registered_dataset(service: Service) -> None:
    request = service.request()
    dataset = service.http.post("/datasets", json={"uri": request["dataset"]["uri"], "name": "tickets"}).json()
    job_id = service.submit(request | {"dataset": {"id": dataset["id"]}})
    service.submit(request)
    assert ids(service.http.get("/jobs", params={"dataset_id": dataset["id"]})) == [job_id]
    assert ids(service.http.get("/datasets", params={"name_prefix": "tick"})) == [dataset["id"]]
    assert ids(service.http.get("/datasets", params={"uri": dataset["uri"], "state": "queued"})) == [dataset["id"]]
    assert ids(service.http.get("/datasets", params={"metadata.x": "y"})) == []


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"state": "done"}, "state.0"),
        ({"created_after": "2026-01-01T00:00:00"}, "created_after"),
        ({"dataset_id": "x"}, "dataset_id"),
        ({"name": "a\x00b"}, "name"),
        ({"metadata.a": "b\x00"}, "metadata.a"),
        ({"metadata." + "k" * 65: "b"}, "metadata." + "k" * 65),
        ({"metadata.a": ["b", "c"]}, "metadata.a"),
        ({f"metadata.{number}": "b" for number in range(65)}, "metadata"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(
    shared_service: Service, params: dict[str, str | list[str]], field: str
) -> None:
    answer = shared_service.http.get("/jobs", params=params)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_page_takes_one_statement_however_long_it_is(service: Service) -> None:
    sessions = service.http.app.state.resources.sessions  # type: ignore[attr-defined]
    with sessions() as session:
        session.add_all([Job(request=EXAMPLE_REQUEST, state=State.SUCCEEDED) for _ in range(60)])
        session.add_all([Dataset(uri=URI, state=State.SUCCEEDED) for _ in range(60)])
        session.commit()
    for path in ("/jobs", "/datasets"):
        with counted(service) as statements:
            assert len(ids(service.http.get(path, params={"limit": 60}))) == 60
        assert len([one for one in statements if f"FROM {path[1:]}" in one]) == 1, statements
