"""The statements that decide who works on a row, and how it ends, on a real Postgres."""

from __future__ import annotations

import os
import socket
import threading
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, func, select, update

from app.core.db.tables import Job, Stage, State
from app.core.lifecycle import counts, fleet, leases
from app.core.lifecycle.leases import Waiting
from app.core.queue import TaskQueue
from app.housekeeping.reconciler import reconcile
from app.main import create_app
from workers.runtime import presence
from workers.runtime.heartbeat import HEARTBEAT_S, LeaseHeartbeat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions
    from app.core.settings import Settings

LONG = 60.0
GONE = -1.0  # a lease that ran out before it began: a worker that died at once
WRITE = "write sketches/used"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def session(sessions: Sessions) -> Iterator[Session]:
    with sessions() as session:
        yield session


@pytest.fixture
def queue(settings: Settings) -> Iterator[TaskQueue]:
    queue = TaskQueue(settings)
    yield queue
    queue.close()


def add_job(session: Session) -> Job:
    job = Job(request={})
    session.add(job)
    session.commit()
    return job


def state_of(session: Session, job: Job) -> State:
    session.refresh(job)
    return job.state


def test_a_postgres_that_vanishes_without_a_word_is_given_up_in_half_a_minute(session: Session) -> None:
    """By TCP: a heartbeat that waits for a host that is gone must not wait for as long as TCP does by itself."""
    descriptor = session.connection().connection.dbapi_connection.pgconn.socket  # type: ignore[union-attr]
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, interval, count = (
            connection.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + interval * count <= 30
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_one_of_many_workers_claims_a_row(sessions: Sessions, session: Session) -> None:
    job = add_job(session)
    won: list[leases.Lease | None] = []
    barrier = threading.Barrier(8)

    def race() -> None:
        with sessions() as own:
            barrier.wait()
            won.append(leases.claim(own, Job, job.id, 1, LONG))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lease is not None for lease in won) == 1


def test_a_message_of_an_older_dispatch_claims_nothing(session: Session) -> None:
    job = add_job(session)
    lease = leases.claim(session, Job, job.id, 1, LONG)
    assert lease is not None
    assert leases.hand_back(session, lease) == 2
    assert leases.claim(session, Job, job.id, 1, LONG) is None
    assert leases.claim(session, Job, job.id, 2, LONG) is not None


def test_a_silent_worker_loses_the_row_and_can_do_nothing_more(session: Session) -> None:
    job = add_job(session)
    dead = leases.claim(session, Job, job.id, 1, GONE)
    assert dead is not None
    assert leases.reclaim_expired(session, Job, 5).again == [Waiting(Job, job.id, 2)]
    heir = leases.claim(session, Job, job.id, 2, LONG)
    assert heir is not None
    assert leases.extend(session, dead, LONG) == leases.Signals(held=False, cancelled=False)
    assert not leases.finish(session, dead, State.SUCCEEDED)
    assert leases.hand_back(session, dead) is None
    assert leases.extend(session, heir, LONG).held
    assert leases.finish(session, heir, State.SUCCEEDED)
    session.commit()
    assert state_of(session, job) is State.SUCCEEDED


def test_a_living_worker_keeps_the_row(session: Session) -> None:
    job = add_job(session)
    leases.claim(session, Job, job.id, 1, LONG)
    assert leases.reclaim_expired(session, Job, 5).again == []
    assert state_of(session, job) is State.RUNNING


def test_a_row_that_kills_its_workers_fails_in_the_end(session: Session) -> None:
    job = add_job(session)
    for dispatch in range(1, 4):
        assert leases.claim(session, Job, job.id, dispatch, GONE) is not None
        again = leases.reclaim_expired(session, Job, max_attempts=3).again
        assert again == ([] if dispatch == 3 else [Waiting(Job, job.id, dispatch + 1)])
    assert state_of(session, job) is State.FAILED
    assert job.error is not None
    assert job.error["type"] == "worker-lost"
    assert job.finished_at is not None


def test_a_cancel_that_comes_before_the_success_wins(session: Session) -> None:
    job = add_job(session)
    lease = leases.claim(session, Job, job.id, 1, LONG)
    assert lease is not None
    assert leases.request_cancel(session, Job, job.id) is State.RUNNING
    assert leases.extend(session, lease, LONG).cancelled
    assert not leases.finish(session, lease, State.SUCCEEDED)
    assert leases.finish(session, lease, State.CANCELLED)


def test_a_cancel_that_comes_after_the_success_changes_nothing(session: Session) -> None:
    job = add_job(session)
    lease = leases.claim(session, Job, job.id, 1, LONG)
    assert lease is not None
    assert leases.finish(session, lease, State.SUCCEEDED)
    session.commit()
    assert leases.request_cancel(session, Job, job.id) is State.SUCCEEDED
    assert state_of(session, job) is State.SUCCEEDED


def test_a_cancelled_row_whose_worker_died_ends_cancelled(session: Session) -> None:
    job = add_job(session)
    leases.claim(session, Job, job.id, 1, GONE)
    leases.request_cancel(session, Job, job.id)
    assert leases.reclaim_expired(session, Job, 5).again == []
    assert state_of(session, job) is State.CANCELLED


def test_the_reconciler_puts_back_what_the_queue_lost(
    sessions: Sessions, session: Session, queue: TaskQueue, settings: Settings
) -> None:
    # Each row has waited long enough as soon as it is queued: also the one that this look itself puts back.
    quick = settings.model_copy(update={"reconcile_s": 1e-6})
    never_queued, orphaned = add_job(session), add_job(session)
    leases.claim(session, Job, orphaned.id, 1, GONE)
    assert reconcile(sessions, queue, quick) == 2
    session.refresh(never_queued)
    session.refresh(orphaned)
    waiting = [Waiting(Job, job.id, job.dispatch) for job in (never_queued, orphaned)]
    assert [work.dispatch for work in waiting] == [1, 2]
    assert queue.missing(waiting) == []
    assert reconcile(sessions, queue, quick) == 0


def test_a_start_without_living_workers_frees_what_they_held(session: Session) -> None:
    held, waiting = add_job(session), add_job(session)
    leases.claim(session, Job, held.id, 1, LONG)
    leases.expire_all(session)
    assert leases.reclaim_expired(session, Job, 5).again == [Waiting(Job, held.id, 2)]
    assert state_of(session, waiting) is State.QUEUED


def test_however_often_work_reports_postgres_sees_one_write_a_heartbeat(
    sessions: Sessions, session: Session, settings: Settings
) -> None:
    lease = leases.claim(session, Job, add_job(session).id, 1, LONG)
    assert lease is not None
    writes: list[str] = []
    event.listen(
        sessions.kw["bind"],
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: writes.append(statement) if "UPDATE jobs" in statement else None,
    )
    context = SimpleNamespace(sessions=sessions, settings=settings, stopping=threading.Event())
    began = time.monotonic()
    with LeaseHeartbeat(context, lease) as heartbeat:  # type: ignore[arg-type]
        meter = heartbeat.enter(Stage.SELECTING, 10_000_000, "picks")
        while time.monotonic() - began < 2.5:
            meter.add(1)
    heartbeats = (time.monotonic() - began) / HEARTBEAT_S
    assert 1 <= len(writes) <= heartbeats
    session.expire_all()
    progress = session.get_one(Job, lease.id).progress
    assert progress is not None
    assert progress["done"] > 10 * len(writes)


def test_a_row_that_waits_for_an_outage_is_tried_again_later_and_fails_in_the_end(session: Session) -> None:
    job = add_job(session)
    lease = leases.claim(session, Job, job.id, 1, LONG)
    assert lease is not None
    assert leases.postpone(session, lease, LONG, WRITE)
    assert state_of(session, job) is State.QUEUED
    assert (job.dispatch, job.crashes, job.lease_token) == (2, 0, None)
    assert job.outage_since is not None
    assert job.queued_at - job.outage_since == leases.SHORTEST_WAIT
    assert leases.waiting_since(session, Job, 0) == []
    assert fleet.backlog(session)["selection"].oldest_s == 0
    again = leases.claim(session, Job, job.id, 2, LONG)
    assert again is not None
    assert not leases.postpone(session, lease, LONG, WRITE)  # a worker that no longer holds it
    assert not leases.postpone(session, again, 0, WRITE)
    assert state_of(session, job) is State.RUNNING


def after_an_outage(session: Session, *, began: timedelta, due: timedelta) -> leases.Lease:
    """A worker's hold on a job whose write failed so long ago, and that was due to be tried again so long ago."""
    job = add_job(session)
    lease = leases.claim(session, Job, job.id, 1, LONG)
    assert lease is not None
    assert leases.postpone(session, lease, LONG, WRITE)
    then = {"outage_since": func.now() - began, "queued_at": func.now() - due}
    session.execute(update(Job).where(Job.id == job.id).values(then))
    session.commit()
    again = leases.claim(session, Job, job.id, 2, LONG)
    assert again is not None
    return again


@pytest.mark.parametrize(
    ("operation", "began", "due", "outcome"),
    [
        (WRITE, 59 * MINUTE, MINUTE, "goes on"),
        (WRITE, 61 * MINUTE, MINUTE, "has lasted too long"),
        # The work has got past the write that failed then: the store has been there since.
        ("write rows.jsonl", 61 * MINUTE, MINUTE, "is a new one"),
        (WRITE, 125 * MINUTE, 59 * MINUTE, "has lasted too long"),
        # The row was in the queue for more than an hour: nobody has seen whether the store was away all that time.
        (WRITE, 125 * MINUTE, 61 * MINUTE, "is a new one"),
    ],
)
def test_an_outage_that_is_over_does_not_count(
    session: Session, operation: str, began: timedelta, due: timedelta, outcome: str
) -> None:
    lease = after_an_outage(session, began=began, due=due)
    assert leases.postpone(session, lease, 3600, operation) is (outcome != "has lasted too long")
    lasted = session.scalar(select(func.now() - Job.outage_since).where(Job.id == lease.id))
    assert lasted is not None
    assert (lasted < MINUTE) is (outcome == "is a new one")


@pytest.mark.parametrize("how", ["hand_back", "postpone"])
def test_a_row_that_was_cancelled_ends_when_its_worker_lets_go_of_it(session: Session, how: str) -> None:
    job = add_job(session)
    lease = leases.claim(session, Job, job.id, 1, LONG)
    assert lease is not None
    leases.request_cancel(session, Job, job.id)
    if how == "hand_back":
        assert leases.hand_back(session, lease) is None
    else:
        assert leases.postpone(session, lease, LONG, WRITE)
    assert state_of(session, job) is State.CANCELLED
    assert job.finished_at is not None


def test_a_heartbeat_outlives_what_nobody_foresaw(
    sessions: Sessions, session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = leases.claim(session, Job, add_job(session).id, 1, LONG)
    assert lease is not None
    extend, failed = leases.extend, threading.Event()

    def fails_once(*arguments: Any, **values: Any) -> leases.Signals:
        if not failed.is_set():
            failed.set()
            raise KeyError("nobody foresaw this")
        return extend(*arguments, **values)

    monkeypatch.setattr(leases, "extend", fails_once)
    context = SimpleNamespace(sessions=sessions, settings=settings, stopping=threading.Event())
    with LeaseHeartbeat(context, lease) as heartbeat:  # type: ignore[arg-type]
        heartbeat.enter(Stage.SELECTING, 10, "picks")
        assert failed.wait(10)
        deadline = time.monotonic() + 10
        while session.get_one(Job, lease.id, populate_existing=True).stage is not Stage.SELECTING:
            assert time.monotonic() < deadline, "what the failed heartbeat had to tell is lost"
            session.rollback()
            time.sleep(0.05)
    assert not heartbeat.lost


def test_a_worker_is_seen_again_after_what_nobody_foresaw(
    sessions: Sessions, session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    appear, failed = fleet.appear, threading.Event()

    def fails_once(*arguments: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise KeyError("nobody foresaw this")
        appear(*arguments)

    monkeypatch.setattr(fleet, "appear", fails_once)
    monkeypatch.setattr(presence, "EVERY_S", 0.05)
    context = SimpleNamespace(sessions=sessions, settings=settings, name="host:1")
    with presence.Presence(context):  # type: ignore[arg-type]
        deadline = time.monotonic() + 10
        while not fleet.alive(session):
            assert time.monotonic() < deadline
            session.rollback()
            time.sleep(0.02)
    assert failed.is_set()
    session.rollback()
    assert not any(fleet.alive(session).values()), "and leaves when it ends"


def test_the_reconciler_outlives_what_nobody_foresaw(
    session: Session, queue: TaskQueue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_ended, failed = counts.count_ended, threading.Event()

    def fails_once(*arguments: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise KeyError("nobody foresaw this")
        count_ended(*arguments)

    monkeypatch.setattr(counts, "count_ended", fails_once)
    quick = settings.model_copy(update={"reconcile_s": 0.05})
    job = add_job(session)
    with TestClient(create_app(quick)):
        deadline = time.monotonic() + 10
        while not failed.is_set() or queue.missing([Waiting(Job, job.id, job.dispatch)]):
            assert time.monotonic() < deadline
            session.refresh(job)
            session.rollback()
            time.sleep(0.02)
