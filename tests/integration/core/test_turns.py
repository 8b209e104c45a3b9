"""Whose turn it is, on a real Postgres: the rules of `app.core.lifecycle.turns`, a test each."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from app.core.db.tables import DEFAULT_PROJECT, Job, Project, Shard, Stage
from app.core.lifecycle import leases, turns
from app.core.queue import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions

REQUEST = {"dataset": {"uri": "file:///data/a.jsonl"}, "model": {"uri": "file:///models/a"}}
OTHER = {**REQUEST, "dataset": {"uri": "file:///data/b.jsonl"}}


@pytest.fixture
def session(sessions: Sessions) -> Iterator[Session]:
    with sessions() as session:
        yield session


def add(session: Session, *rows: Job | Project | Shard) -> None:
    """Each in a transaction of its own, so that their times of creation differ."""
    for row in rows:
        session.add(row)
        session.commit()


def job(request: dict[str, object] | None = None, *, project_id: uuid.UUID = DEFAULT_PROJECT, priority: int = 0) -> Job:
    return Job(request=request or {"dataset": {"uri": str(uuid.uuid4())}}, project_id=project_id, priority=priority)


def taken(session: Session, times: int) -> list[uuid.UUID]:
    """The rows that a worker claims, one after the other."""
    found = []
    for _ in range(times):
        row = turns.next_row(session, tuple(KINDS))
        assert row is not None
        assert leases.claim(session, row.table, row.id, row.dispatch, 60) is not None
        found.append(row.id)
    return found


def park(session: Session, parked: Job, shards: int) -> list[uuid.UUID]:
    lease = leases.claim(session, Job, parked.id, parked.dispatch, 60)
    assert lease is not None
    parked.lease_token = parked.lease_expires_at = None
    parked.stage = Stage.GRADIENTS
    units = [Shard(job_id=parked.id, number=number, samples=1) for number in range(shards)]
    add(session, *units)
    return [unit.id for unit in units]


def test_projects_take_turns_however_many_jobs_each_has(session: Session) -> None:
    other = Project(name="other")
    add(session, other)
    many = [job() for _ in range(5)]
    add(session, *many)
    single = job(project_id=other.id, priority=-1)
    add(session, single)
    order = taken(session, 3)
    assert single.id in order[:2]


def test_a_higher_priority_comes_first_and_then_the_older_job(session: Session) -> None:
    low, normal, later, high = job(priority=-1), job(), job(), job(priority=1)
    add(session, low, normal, later, high)
    assert taken(session, 4) == [high.id, normal.id, later.id, low.id]


def test_what_is_begun_is_finished_before_something_new_begins(session: Session) -> None:
    begun, new = job(), job()
    add(session, begun, new)
    units = park(session, begun, 3)
    assert taken(session, 4) == [*units, new.id]


def test_a_job_of_high_priority_waits_for_at_most_the_shard_at_hand(session: Session) -> None:
    begun = job()
    add(session, begun)
    units = park(session, begun, 3)
    assert taken(session, 1) == units[:1]
    urgent = job(priority=1)
    add(session, urgent)
    assert taken(session, 2) == [urgent.id, units[1]]


def test_a_new_job_waits_while_the_same_data_is_being_read(session: Session) -> None:
    first, same, different = job(REQUEST), job(REQUEST), job(OTHER)
    add(session, first, same, different)
    assert taken(session, 1) == [first.id]
    assert taken(session, 1) == [different.id]
    first.stage = Stage.READING
    session.commit()
    assert turns.next_row(session, tuple(KINDS)) is None
    first.stage = Stage.SELECTING
    session.commit()
    assert taken(session, 1) == [same.id]


def test_what_is_put_off_or_served_by_other_workers_is_not_taken(session: Session) -> None:
    begun = job()
    add(session, begun)
    units = park(session, begun, 1)
    assert turns.next_row(session, [Job]) is None
    row = turns.next_row(session, [Shard])
    assert row is not None
    lease = leases.claim(session, Shard, row.id, row.dispatch, 60)
    assert lease is not None
    assert units == [row.id]
    assert leases.postpone(session, lease, 60, "fetch")
    assert turns.next_row(session, [Shard]) is None


def test_what_is_at_hand_gives_way_to_those_whose_turn_comes_before(session: Session) -> None:
    """Another project that was served longer ago, or a higher priority; not one that has just had its turn."""
    other = Project(name="other")
    add(session, other)
    at_hand = job()
    add(session, at_hand)
    assert taken(session, 1) == [at_hand.id]
    turn, tables = turns.Turn(DEFAULT_PROJECT, 0), tuple(KINDS)
    add(session, job(), job(priority=-1))
    assert not turns.others_wait(session, tables, turn), "jobs of its own project that are no more urgent"
    theirs = [job(project_id=other.id, priority=-1) for _ in range(2)]
    add(session, *theirs)
    assert turns.others_wait(session, tables, turn)
    assert not turns.others_wait(session, [Shard], turn), "this worker does not serve them"
    assert taken(session, 1) == [theirs[0].id]
    assert not turns.others_wait(session, tables, turn), "another worker is at it: each project has one"
    add(session, job(priority=1))
    assert turns.others_wait(session, tables, turn)
    assert not turns.others_wait(session, tables, turns.Turn(DEFAULT_PROJECT, 1))
