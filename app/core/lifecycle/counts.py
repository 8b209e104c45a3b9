"""Counters of the whole service, kept in Postgres: they survive restarts, and every API process reads the same.

Jobs end in many places, and none of these places counts: `count_ended` counts each ended job once, later. A job that is
deleted before `count_ended` has seen it is counted by the deletion (`app.core.lifecycle.deletion`).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from app.core.db.tables import Counter, Job, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from app.core.db.tables import Json

JOBS_ENDED = "jobs_ended"
SAMPLES = "samples"
TOKENS = "tokens"
STAGE_SECONDS = "stage_seconds"
STAGE_BUCKETS = "stage_buckets"
BUCKETS_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Upper ends of the histogram's buckets, in seconds; above the last is one more."""

AT_ONCE = 10_000

ENDED = (Job.state, Job.error, Job.result["seconds"].label("seconds"))
"""What is counted of a job that has ended."""

Amounts = dict[tuple[str, tuple[str, ...]], float]


def add(session: Session, amounts: Amounts) -> None:
    """Add to counters, by name and labels, in the caller's transaction; in one order, so that none wait in a ring."""
    if not amounts:
        return
    values = [
        {"name": name, "labels": list(labels), "value": amount} for (name, labels), amount in sorted(amounts.items())
    ]
    statement = insert(Counter).values(values)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Counter.name, Counter.labels], set_={"value": Counter.value + statement.excluded.value}
        )
    )


def count_ended(session: Session) -> None:
    """Count the ended jobs that were not counted yet, and commit."""
    due = (
        select(Job.id)
        .where(Job.finished_at.is_not(None), ~Job.counted)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    ended = session.execute(
        update(Job).where(Job.id.in_(due.scalar_subquery())).values(counted=True).returning(*ENDED)
    ).all()
    add(session, of_ended(ended))
    session.commit()


def of_ended(rows: Iterable[Row[Any]]) -> Amounts:
    """The amounts of jobs that have ended, out of rows that have what `ENDED` names."""
    amounts: Amounts = {}
    for row in rows:
        for key, amount in {**_job_ended(row.state, row.error), **_stages_ended(row.seconds or {})}.items():
            amounts[key] = amounts.get(key, 0) + amount
    return amounts


def _job_ended(state: State, error: Json | None) -> Amounts:
    """The amount of a job, with the problem that it failed with."""
    reason = str((error or {}).get("type", "unknown")) if state is State.FAILED else ""
    return {(JOBS_ENDED, (str(state), reason)): 1}


def _stages_ended(seconds: Mapping[str, float]) -> Amounts:
    """The amounts of the stages of a job, with the seconds that each took."""
    amounts: Amounts = {}
    for stage, taken in seconds.items():
        amounts[STAGE_SECONDS, (str(stage),)] = taken
        amounts[STAGE_BUCKETS, (str(stage), str(bisect_left(BUCKETS_S, taken)))] = 1
    return amounts


def totals(session: Session) -> Amounts:
    """All counters."""
    rows = session.execute(select(Counter.name, Counter.labels, Counter.value)).all()
    return {(row.name, tuple(row.labels)): row.value for row in rows}
