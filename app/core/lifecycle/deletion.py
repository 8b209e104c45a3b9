"""Delete jobs, proofs and datasets, on request and when they expire."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Text, cast, delete, exists, func, or_, select

from app.core.db.tables import Dataset, Estimate, Job, Preview, Proof, State
from app.core.lifecycle import counts, quotas
from app.core.lifecycle.leases import OPEN

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Collection, Iterator

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions

FINAL = tuple(state for state in State if state.final)
ESTIMATES_KEPT = timedelta(days=1)


def delete_job(session: Session, job_id: uuid.UUID) -> bool:
    """Delete a job with its results and events in the caller's transaction; False if it has not ended or is gone.

    Its usage stays: in the counters of `app.core.lifecycle.counts`, and for a day in its project's quota.
    """
    gone = session.execute(
        delete(Job)
        .where(Job.id == job_id, Job.state.in_(FINAL))
        .returning(Job.project_id, Job.created_at, Job.rows, Job.counted, *counts.ENDED)
    ).one_or_none()
    if gone is None:
        return False
    if not gone.counted:
        counts.add(session, counts.of_ended([gone]))
    quotas.keep_deleted(session, job_id, gone.project_id, gone.created_at, gone.rows)
    return True


def delete_proof(session: Session, proof_id: uuid.UUID) -> bool:
    """Delete a proof with its runs and events in the caller's transaction; False if it has not ended or is gone."""
    gone = session.execute(delete(Proof).where(Proof.id == proof_id, Proof.state.in_(FINAL)).returning(Proof.id))
    return gone.one_or_none() is not None


def delete_dataset(session: Session, dataset_id: uuid.UUID) -> bool:
    """Delete a dataset in the caller's transaction; False if a worker or an open job reads it, or it is gone."""
    gone = session.execute(delete(Dataset).where(Dataset.id == dataset_id, *_unread()).returning(Dataset.id))
    return gone.one_or_none() is not None


DELETIONS: dict[type[Job | Proof], Callable[[Session, uuid.UUID], bool]] = {Job: delete_job, Proof: delete_proof}


@contextmanager
def expired(sessions: Sessions, table: type[Job | Proof], but: Collection[uuid.UUID]) -> Iterator[uuid.UUID | None]:
    """An expired row, locked inside the block and deleted at its end; None if none has expired.

    A row whose webhook message is not delivered yet stays until it is delivered or given up, and a job for as long as a
    proof of it goes on.

    After an error inside the block the row stays.

    Args:
        sessions: The database.
        table: Jobs or proofs.
        but: Rows to leave out.
    """
    conditions = [
        table.expires_at < func.now(),
        table.state.in_(FINAL),
        table.webhook_due_at.is_(None),
        table.id.not_in(but),
    ]
    if table is Job:
        conditions.append(~exists().where(Proof.job_id == Job.id, Proof.state.in_(OPEN)))
    with sessions() as session:
        row_id = session.scalar(
            select(table.id)
            .where(*conditions)
            .order_by(table.expires_at)
            .limit(1)
            .with_for_update(skip_locked=True, of=table)
        )
        yield row_id
        if row_id is not None:
            DELETIONS[table](session, row_id)
        session.commit()


def delete_old_estimates(session: Session) -> None:
    """Delete the estimates that nobody will look at any more, and commit."""
    session.execute(delete(Estimate).where(Estimate.created_at < func.now() - ESTIMATES_KEPT))
    session.commit()


def delete_expired_datasets(session: Session) -> int:
    """Delete the expired datasets that nothing reads; the number of them."""
    gone = session.execute(delete(Dataset).where(Dataset.expires_at < func.now(), *_unread()).returning(Dataset.id))
    count = len(gone.all())
    session.commit()
    return count


def _unread() -> tuple[ColumnElement[bool], ...]:
    beside = (Job.request[("selection", role, "dataset", "id")].astext for role in ("target", "protect"))
    named = [Job.dataset_id == Dataset.id, *(one == cast(Dataset.id, Text) for one in beside)]
    open_job = exists().where(or_(*named), Job.state.in_(OPEN))
    open_preview = exists().where(Preview.dataset_id == Dataset.id, Preview.state.in_(OPEN))
    return Dataset.state.in_(FINAL), ~open_job, ~open_preview
