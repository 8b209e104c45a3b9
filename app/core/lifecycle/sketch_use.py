"""Which sketches are in use: a job says so in its row before it looks for them, and deletion asks first.

Both go through one advisory lock of Postgres for each key, shared by the jobs and exclusive to a deletion. So a job
that begins to use a key while it is being deleted waits until that is over and finds nothing, and a deletion that
begins after a job said so finds the job. No clock and no period of grace is needed for that.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from app.core.db.tables import Job
from app.core.lifecycle import leases
from app.core.lifecycle.leases import OPEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from app.core.contracts.job_plan import JobPlan
    from app.core.db.engine import Sessions
    from app.core.lifecycle.leases import Lease, Signals


def use(session: Session, lease: Lease, key: str, plan: JobPlan, seconds: float) -> Signals:
    """Note in a job's plan that it uses sketches, from now until the job ends; extends the lease, and commits.

    Args:
        session: For this transaction alone.
        lease: The worker's hold on the job.
        key: The sketches' content key.
        plan: The rest of the job's plan.
        seconds: Of the lease.
    """
    session.execute(select(func.pg_advisory_xact_lock_shared(lock_number(key))))
    return leases.extend(session, lease, seconds, plan=plan.model_copy(update={"uses": key}).stored())


@contextmanager
def retiring(sessions: Sessions, key: str) -> Iterator[bool]:
    """Hold a key against new users. True: no job uses it, and it may be deleted inside the block."""
    with sessions() as session:
        locked = session.scalar(select(func.pg_try_advisory_xact_lock(lock_number(key))))
        yield bool(locked) and key not in used_keys(session)
        session.rollback()


def live_corpora(session: Session) -> tuple[set[str], set[str]]:
    """Fingerprints of the datasets, and digests of the samples, of all jobs that have not ended."""
    rows = session.execute(
        select(Job.plan["fingerprint"].astext, Job.plan["corpus"].astext, Job.plan["beside"]).where(
            Job.state.in_(OPEN), Job.plan.is_not(None)
        )
    ).all()
    fingerprints = {fingerprint for own, _, beside in rows for fingerprint in (own, *(beside or {}).values())}
    return fingerprints - {None}, {corpus for _, corpus, _ in rows if corpus}


def used_keys(session: Session) -> set[str]:
    """The keys of all jobs that have not ended."""
    rows = session.execute(
        select(Job.plan["sketches"].astext, Job.plan["uses"].astext).where(Job.state.in_(OPEN), Job.plan.is_not(None))
    ).all()
    return {key for row in rows for key in row if key}


def pieces_in_use(session: Session) -> set[str]:
    """Keys of the corpora that jobs which have not ended read, or have read, in pieces."""
    key = func.coalesce(Job.plan["ranges"]["key"].astext, Job.plan["pieces"].astext)
    return set(session.scalars(select(key).where(Job.state.in_(OPEN), key.is_not(None))))


def lock_number(digits: str) -> int:
    """The first 16 of some hexadecimal digits as the signed 64 bits that Postgres names a lock by."""
    return int.from_bytes(bytes.fromhex(digits[:16]), signed=True)
