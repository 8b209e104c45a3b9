"""The methods of a job side by side, with what proofs of the job say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from app.core.contracts.job_result import JobResult
from app.core.contracts.proof_request import SELECTED
from app.core.db.tables import Proof, State
from app.results.schemas import League, LeagueLine, ProofVerdict
from app.results.service import finished_job

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator

    from sqlalchemy.orm import Session


def league(session: Session, job_id: uuid.UUID) -> League:
    """The league table of a finished job.

    Raises:
        JobNotFound: There is no such job.
        ResultNotReady: It has not succeeded.
    """
    job = finished_job(session, job_id)
    method = job.request["selection"].get("method", "spice")
    result = JobResult.model_validate(job.result)
    found: dict[str, list[ProofVerdict]] = {}
    for arm, verdict in _verdicts(session, job_id):
        found.setdefault(method if arm == SELECTED else arm, []).append(verdict)
    lines = [
        LeagueLine(**row.model_dump(), requested=row.method == method, verdicts=found.get(row.method, []))
        for row in result.league
    ]
    return League(job_id=job_id, methods=lines)


def _verdicts(session: Session, job_id: uuid.UUID) -> Iterator[tuple[str, ProofVerdict]]:
    """What each arm came to in each proof of a job, the newest proof first."""
    proofs = session.scalars(
        select(Proof).where(Proof.job_id == job_id, Proof.state == State.SUCCEEDED).order_by(Proof.created_at.desc())
    )
    for proof in proofs:
        comparisons: list[dict[str, Any]] = (proof.result or {}).get("comparisons", [])
        for one in comparisons:
            yield (
                one["arm"],
                ProofVerdict(
                    proof_id=proof.id,
                    metric=one["metric"],
                    against=one["against"],
                    difference=one["difference"],
                    interval=one["interval"],
                    verdict=one["verdict"],
                ),
            )
