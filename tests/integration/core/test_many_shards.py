"""The end of a shard costs Postgres as much in a job of 20,000 shards as in one of 1,000: what it reads is counted."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, text, update

from app.core.db.tables import Job, Shard, Stage, State
from app.core.lifecycle import leases, limits, parking, turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions

ENDED = 20
READ = text("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'shards'")


@pytest.fixture
def session(sessions: Sessions) -> Iterator[Session]:
    with sessions() as session:
        yield session


def parked_job(session: Session, shards: int) -> uuid.UUID:
    """A job that is parked for so many shards, of which all but `2 * ENDED` are done."""
    job = Job(request={"dataset": {"uri": "file:///data/a.jsonl"}}, state=State.RUNNING, stage=Stage.GRADIENTS, plan={})
    session.add(job)
    session.flush()
    done = shards - 2 * ENDED
    rows = [
        {
            "id": uuid.uuid4(),
            "job_id": job.id,
            "number": number,
            "samples": 1,
            "state": State.SUCCEEDED if number < done else State.QUEUED,
        }
        for number in range(shards)
    ]
    session.execute(insert(Shard), rows)
    # The sum of all shards, which is told twice a second at most, is not looked at.
    session.execute(update(Job).where(Job.id == job.id).values(updated_at=text("now() + interval '1 hour'")))
    session.commit()
    session.execute(text("ANALYZE shards"))
    session.commit()
    return job.id


def rows_read(session: Session) -> int:
    """Rows of shards that Postgres has read so far."""
    session.execute(text("SELECT pg_stat_force_next_flush()"))
    session.commit()
    session.execute(text("SELECT pg_stat_clear_snapshot()"))
    read = int(session.execute(READ).scalar_one())
    session.rollback()
    return read


def end_shards(session: Session, job_id: uuid.UUID, count: int) -> None:
    """As a worker does it: whose turn it is, the shard, its end, and whether the job is done."""
    for _ in range(count):
        row = turns.next_row(session, (Shard,))
        assert row is not None
        lease = leases.claim(session, Shard, row.id, row.dispatch, 60)
        assert lease is not None
        assert leases.finish(session, lease, State.SUCCEEDED, samples=1, tokens=1)
        session.commit()
        limits.enforce(session, job_id)
        assert parking.wake_jobs(session, job_id) == []


@pytest.mark.parametrize("shards", [1000, 20_000])
def test_the_end_of_a_shard_reads_few_others_however_many_there_are(session: Session, shards: int) -> None:
    job_id = parked_job(session, shards)
    end_shards(session, job_id, 1)
    before = rows_read(session)
    end_shards(session, job_id, ENDED)
    assert (rows_read(session) - before) / ENDED <= 10
    end_shards(session, job_id, ENDED - 2)
    row = turns.next_row(session, (Shard,))
    assert row is not None
    lease = leases.claim(session, Shard, row.id, row.dispatch, 60)
    assert lease is not None
    assert leases.finish(session, lease, State.SUCCEEDED, samples=1, tokens=1)
    session.commit()
    assert [woken.id for woken in parking.wake_jobs(session, job_id)] == [job_id], "its last shard wakes the job"
