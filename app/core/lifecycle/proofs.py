"""The runs of proofs: made when a proof is parked for them, read when it compares them, stopped when it ends."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.orm import aliased

from app.core.db.tables import Job, Proof, ProofRun, ProofStage, State
from app.core.lifecycle import leases, parking
from app.core.lifecycle.leases import OPEN, Waiting
from app.core.storage import proof_prefix, run_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from app.core.db.tables import Json
    from app.core.lifecycle.leases import Lease


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run to be made: its arm and seed, the content address of its outcome, and its steps."""

    arm: str
    seed: int
    key: str
    steps: int


def park_for_job(session: Session, lease: Lease, job_id: uuid.UUID, plan: Json) -> bool:
    """Let go of a proof until a job has ended; commits. False if it is no longer held or was cancelled."""
    held = parking.let_go(session, lease, stage=ProofStage.GRADIENTS, progress=None, plan=plan, job_id=job_id)
    session.commit()
    return held


def park_for_runs(session: Session, lease: Lease, runs: Sequence[PlannedRun], plan: Json) -> list[Waiting]:
    """Let go of a proof until its runs are done, in one transaction with their making.

    Returns:
        The runs, to be put into the queue; none if the proof is no longer held or was cancelled.
    """
    progress = {"done": 0, "total": sum(run.steps for run in runs), "unit": "steps", "rate": None, "eta_s": None}
    if not parking.let_go(session, lease, stage=ProofStage.TRAINING, progress=progress, plan=plan):
        session.rollback()
        return []
    rows = [{"id": uuid.uuid4(), "proof_id": lease.id, **asdict(run)} for run in runs]
    session.execute(insert(ProofRun), rows)
    session.commit()
    return [Waiting(ProofRun, row["id"], 1) for row in rows]


def wake(session: Session, *, proof_id: uuid.UUID | None = None, job_id: uuid.UUID | None = None) -> list[Waiting]:
    """Queue parked proofs whose job and runs have all ended; commits.

    Args:
        session: For this transaction alone.
        proof_id: Only this one.
        job_id: Only those of this job.
    """
    conditions = [
        ~exists().where(Job.id == Proof.job_id, Job.state.in_(OPEN)),
        ~exists().where(ProofRun.proof_id == Proof.id, ProofRun.state.in_(OPEN)),
    ]
    if proof_id is not None:
        conditions.append(Proof.id == proof_id)
    if job_id is not None:
        conditions.append(Proof.job_id == job_id)
    return parking.wake(session, Proof, *conditions)


def drop_finished(session: Session) -> None:
    """Cancel what is open of the runs of proofs that have ended, and the jobs made for them; the caller commits.

    A worker that still holds one of them hears of it with its next heartbeat. A job that another proof waits for goes
    on.
    """
    ended = select(Proof.id).where(Proof.id == ProofRun.proof_id, Proof.state.not_in(OPEN)).exists()
    session.execute(
        update(ProofRun)
        .where(ProofRun.state.in_(OPEN), ended)
        .values(state=State.CANCELLED, lease_token=None, lease_expires_at=None, finished_at=func.now())
    )
    of_job = Proof.job_id == Job.id
    unwanted = exists().where(of_job, Proof.own_job, Proof.state.in_((State.FAILED, State.CANCELLED)))
    wanted = exists().where(of_job, Proof.state.in_(OPEN))
    jobs = session.scalars(
        select(Job.id).where(Job.state.in_(OPEN), Job.cancel_requested_at.is_(None), unwanted, ~wanted)
    ).all()
    for job_id in jobs:
        leases.request_cancel(session, Job, job_id)
    if jobs:
        parking.drop_units(session)


def prefixes_of(session: Session, proof_id: uuid.UUID) -> list[str]:
    """Under which names a proof keeps files that no other proof has: its own, and those of runs that are its alone."""
    other = aliased(ProofRun)
    shared = exists().where(other.key == ProofRun.key, other.proof_id != proof_id)
    keys = session.scalars(select(ProofRun.key).where(ProofRun.proof_id == proof_id, ~shared).distinct()).all()
    return [proof_prefix(proof_id), *map(run_prefix, sorted(keys))]


def runs_of(session: Session, proof_id: uuid.UUID) -> Sequence[ProofRun]:
    """The runs of a proof by arm and seed."""
    statement = select(ProofRun).where(ProofRun.proof_id == proof_id)
    return session.scalars(statement.order_by(ProofRun.created_at, ProofRun.arm, ProofRun.seed)).all()
