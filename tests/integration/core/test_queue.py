"""Messages go to the queue, and are looked for there, in a number of round trips that does not grow with the rows."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from sqlalchemy import func, insert, update

from app.core import queue as queues
from app.core.db.tables import Dataset, Job, Part, Preview, Shard, State
from app.core.lifecycle.leases import Waiting
from app.core.queue import TaskQueue
from app.housekeeping.reconciler import reconcile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.core.db.engine import Sessions
    from app.core.lifecycle.leases import Work
    from app.core.settings import Settings


@pytest.fixture
def queue(settings: Settings) -> Iterator[TaskQueue]:
    queue = TaskQueue(settings)
    yield queue
    queue.close()


@contextmanager
def counted(settings: Settings) -> Iterator[dict[str, int]]:
    """How often each command is carried out meanwhile; the dictionary is filled at the end."""
    calls: dict[str, int] = {}
    with Redis.from_url(str(settings.redis_url)) as redis:
        redis.config_resetstat()
        yield calls
        for name, stats in redis.info("commandstats").items():
            calls[name.removeprefix("cmdstat_")] = stats["calls"]


@contextmanager
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """An entry for each transaction of a pipeline that is sent meanwhile: its commands."""
    sent: list[int] = []
    from redis.client import Pipeline  # noqa: PLC0415 - patched here alone

    execute = Pipeline.execute

    def noted(self: Pipeline, *arguments: bool) -> object:
        sent.append(len(self.command_stack))
        return execute(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "execute", noted)
        yield sent


def test_the_shards_of_a_job_are_put_in_one_round_trip(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Waiting(Shard, uuid.uuid4(), 1) for _ in range(300)]
    with round_trips(monkeypatch) as sent:
        queue.put(rows)
    assert len(sent) == 1, sent
    assert queue.lengths()["gradients"] == 300
    assert queue.missing(rows) == []


def test_very_many_go_in_several(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "AT_ONCE", 100)
    with round_trips(monkeypatch) as sent:
        queue.put([Waiting(Shard, uuid.uuid4(), 1) for _ in range(250)])
    assert len(sent) == 3
    assert queue.lengths() == {"selection": 0, "gradients": 250, "proofs": 0}


def test_the_order_of_the_rows_is_that_of_the_messages(queue: TaskQueue, settings: Settings) -> None:
    tables: list[Work] = [Job, Dataset, Job, Preview, Part]
    rows = [Waiting(table, uuid.uuid4(), 1) for table in tables]
    queue.put(rows)
    with Redis.from_url(str(settings.redis_url)) as redis:
        names = redis.lrange(f"rq:queue:{settings.queue_name}-selection", 0, -1)
    assert [name.decode() for name in names] == [f"{row.id}-1" for row in rows]


def test_a_look_of_the_reconciler_reads_each_queue_once(
    queue: TaskQueue, sessions: Sessions, settings: Settings
) -> None:
    with sessions() as session:
        dataset, job = Dataset(uri="file:///a"), Job(request={}, state=State.RUNNING)
        session.add_all([dataset, job])
        session.flush()
        session.add_all([Job(request={}), Preview(dataset_id=dataset.id, request={})])
        session.add_all([Shard(job_id=job.id, number=1, samples=1), Part(job_id=job.id, number=1, budget=1)])
        session.flush()
        session.execute(insert(Job), [{"request": {}} for _ in range(20)])
        for table in (Dataset, Job, Preview, Shard, Part):
            session.execute(update(table).values(queued_at=func.now() - func.make_interval(0, 0, 0, 1)))
        session.commit()
    with counted(settings) as calls:
        assert reconcile(sessions, queue, settings) == 25
    assert calls["lrange"] == 2, calls
    assert reconcile(sessions, queue, settings) == 0
