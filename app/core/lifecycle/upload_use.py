"""Which uploaded files open work reads: those stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Text, and_, any_, cast, exists, or_, select

from app.core.db.tables import Dataset, Estimate, Job, Preview, Proof
from app.core.lifecycle.leases import OPEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session


def is_read(session: Session, uri: str) -> bool:
    """Whether a job, a proof, an estimate, a preview or a registration that has not ended reads an uploaded file.

    Args:
        session: Sees the file's project.
        uri: Of the file; it is in a request as it is here, or is that of a dataset whose id is in the request.
    """
    of_file = or_(Dataset.uri == uri, any_(Dataset.uris) == uri)
    if session.scalar(select(exists().where(of_file, Dataset.state.in_(OPEN)))):
        return True
    names = [uri, *map(str, session.scalars(select(Dataset.id).where(of_file)))]
    of_job = _names(Job, names)
    reads = (
        exists().where(Job.state.in_(OPEN), of_job),
        exists().where(Proof.state.in_(OPEN), or_(_names(Proof, names), and_(Proof.job_id == Job.id, of_job))),
        exists().where(Estimate.state.in_(OPEN), _names(Estimate, names)),
        exists().where(Preview.state.in_(OPEN), Preview.dataset_id == Dataset.id, of_file),
    )
    return any(session.scalar(select(one)) for one in reads)


def _names(table: type[Job | Proof | Estimate], names: Sequence[str]) -> ColumnElement[bool]:
    return or_(*(cast(table.request, Text).contains(name, autoescape=True) for name in names))
