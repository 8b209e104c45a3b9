"""Rows that go in as one JSON document are those that the unit of work would have made."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from app.access import projects
from app.core.db.scoping import project_sessions
from app.core.db.tables import DEFAULT_PROJECT, Dataset, Job, Preview
from app.http import new_rows
from tests.integration.test_statements import statements

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from app.http.new_rows import New

AWKWARD = "naïve \N{ROCKET} \"quoted\" 'too' \\ back\nslash %s :rows {}"
NEW: dict[str, tuple[type[New], dict[str, Any]]] = {
    "job": (
        Job,
        {
            "name": AWKWARD,
            "metadata_": {"a": AWKWARD},
            "request": {"seed": 2**63 - 1, "penalty": 1e-17, "nothing": None, "deep": [{"x": AWKWARD}]},
            "timeout_s": 0.1,
            "rows": 2**40,
            "expires_at": datetime(2031, 2, 3, 4, 5, 6, 789, UTC),
            "origin": {"request_id": "r"},
        },
    ),
    "bare job": (Job, {"request": {}, "name": None, "dataset_id": None, "expires_at": None, "origin": None}),
    "dataset": (Dataset, {"uri": AWKWARD, "format": None, "name": AWKWARD, "metadata_": {}}),
    "preview": (Preview, {"dataset_id": uuid.UUID(int=7), "request": {"rows": 3}}),
}
OF_ITS_OWN = {"id", "created_at", "queued_at", "updated_at"}


@pytest.fixture
def ours(sessions: Sessions) -> Sessions:
    with sessions() as session:
        ours = project_sessions(sessions, projects.create(session, "ours").id)
    with ours() as session:
        session.add(Dataset(id=uuid.UUID(int=7), uri="file:///a"))
        session.commit()
    return ours


def columns(row: New) -> dict[str, Any]:
    return {name: getattr(row, name) for name, _ in type(row).__mapper__.columns.items()}


@pytest.mark.parametrize("case", NEW)
def test_a_row_is_as_the_unit_of_work_makes_it(ours: Sessions, case: str) -> None:
    kind, values = NEW[case]
    one, other = kind(id=uuid.uuid4(), **values), kind(id=uuid.uuid4(), **values)
    with ours() as session:
        session.add(one)
        new_rows.insert_new(session, [other])
        session.commit()
        told = columns(other)
    with ours() as session:
        stored = columns(session.get_one(kind, other.id))
        expected = columns(session.get_one(kind, one.id))
    assert {name: stored[name] for name in stored.keys() - OF_ITS_OWN} == {
        name: expected[name] for name in expected.keys() - OF_ITS_OWN
    }
    assert told == stored
    assert stored["project_id"] != DEFAULT_PROJECT


def test_many_are_one_statement_and_each_is_told_its_own(ours: Sessions) -> None:
    jobs = [Job(id=uuid.uuid4(), request={"n": number}, name=str(number)) for number in range(50)]
    jobs[7].timeout_s = 7.0
    with ours() as session:
        with statements() as seen:
            new_rows.insert_new(session, jobs)
        session.commit()
        assert len(seen) == 1
        assert all(job.created_at is not None and job.dispatch == 1 for job in jobs)
        stored = {job.id: job for job in session.scalars(select(Job))}
    assert {id_: (job.name, job.request, job.timeout_s) for id_, job in stored.items()} == {
        job.id: (job.name, job.request, job.timeout_s) for job in jobs
    }


def test_what_is_no_new_row_is_passed_over(ours: Sessions) -> None:
    with ours() as session:
        pending = Job(id=uuid.uuid4(), request={})
        session.add(pending)
        with session.no_autoflush, statements() as seen:
            new_rows.insert_new(session, [None, "x", pending, session.get_one(Dataset, uuid.UUID(int=7))])
        assert [statement.split()[0] for statement in seen] == ["SELECT"]
