"""The methods of a job side by side, with what proofs of the job say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from app.core.contracts.job_result import JobResult
from app.core.contracts.proof_request import ProofRequest, arm_label, method_of
from app.core.db.tables import Proof, State
from app.results.schemas import League, LeagueLine, ProofVerdict
from app.results.service import finished_job

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from app.core.contracts.selection_request import Method


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
    for proven, verdict in _verdicts(session, job_id, method):
        found.setdefault(proven, []).append(verdict)
    lines = [
        LeagueLine(**row.model_dump(), requested=row.method == method, verdicts=found.get(row.method, []))
        for row in result.league
    ]
    return League(job_id=job_id, methods=lines)


def _verdicts(session: Session, job_id: uuid.UUID, own: Method) -> Iterator[tuple[Method, ProofVerdict]]:
    """What each method came to in each proof of a job, the newest proof first.

    An arm may be called like a method and be another: a list of rows, or that method with settings of its own.
    """
    proofs = session.scalars(
        select(Proof).where(Proof.job_id == job_id, Proof.state == State.SUCCEEDED).order_by(Proof.created_at.desc())
    )
    for proof in proofs:
        methods = {arm_label(arm): method_of(arm, own) for arm in ProofRequest.model_validate(proof.request).arms}
        comparisons: list[dict[str, Any]] = (proof.result or {}).get("comparisons", [])
        for one in comparisons:
            proven = methods.get(one["arm"])
            if proven is None:
                continue
            yield (
                proven,
                ProofVerdict(
                    proof_id=proof.id,
                    metric=one["metric"],
                    against=one["against"],
                    difference=one["difference"],
                    interval=one["interval"],
                    verdict=one["verdict"],
                ),
            )
