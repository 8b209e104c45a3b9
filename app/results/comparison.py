"""`/jobs/{id}/comparison`: which rows several jobs picked, all of them, some of them or one alone."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import BigInteger, Integer, case, func, select
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by

from app.core.contracts.schema import Response
from app.core.db.selections import MAIN
from app.core.db.tables import SelectionChunk
from app.http.dependencies import SessionDep  # noqa: TC001 - FastAPI reads the annotations
from app.http.openapi import example, problems
from app.http.problems import FieldError, InvalidRequest, JobNotFound, ResultNotReady
from app.results.schemas import JOB_ID
from app.results.service import finished_job

MOST_JOBS = 8
SHOWN = 50
"""Row numbers that are named of those that one job alone picked."""
OTHER_ID = "0f9c3f0e-8a4b-4c39-9c53-3f9e5b2f6f10"

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"])


class ComparedJob(Response):
    """The picks of one of the jobs beside those of the others."""

    job_id: uuid.UUID
    selected: int
    shared: list[int] = Field(description="Rows that are also picks of each job, in the order of the jobs.")
    alone: int = Field(description="Rows that none of the others picked.")
    alone_rows: list[int] = Field(description=f"The first {SHOWN} of these, by row number.")


class Comparison(Response):
    """Jobs beside one another."""

    jobs: list[ComparedJob]
    in_all: int = Field(description="Rows that all of them picked.")
    in_any: int = Field(description="Rows that at least one of them picked.")
    same_rows: bool = Field(description="Whether all read the same data; else row numbers do not name the same rows.")
    same_scale: bool = Field(description="Whether sketches and alpha are the same; else log-dets can't be compared.")


EXAMPLE_COMPARISON = {
    "jobs": [
        {"job_id": JOB_ID, "selected": 3, "shared": [3, 2], "alone": 1, "alone_rows": [812]},
        {"job_id": OTHER_ID, "selected": 2, "shared": [2, 2], "alone": 0, "alone_rows": []},
    ],
    "in_all": 2,
    "in_any": 3,
    "same_rows": True,
    "same_scale": True,
}


@router.get(
    "/comparison",
    summary="Compare the picks of several jobs",
    responses=example(200, "The comparison.", EXAMPLE_COMPARISON)
    | problems(
        (JobNotFound, f"No job has the id {JOB_ID}."),
        (ResultNotReady, f"Job {JOB_ID} is running: poll it until its state is succeeded."),
        (InvalidRequest, "other: give one to 7 other jobs, each once"),
    ),
)
def comparison(
    session: SessionDep,
    job_id: uuid.UUID,
    other: Annotated[list[uuid.UUID], Query(description="Whom to compare with; repeatable.")] = [],  # noqa: B006 - not changed
) -> Comparison:
    """Rows that several jobs picked, and those of one alone. Postgres counts them; no list of picks is sent."""
    first_job = finished_job(session, job_id)
    job = [job_id, *other]
    if len(set(job)) < len(job) or not 1 < len(job) <= MOST_JOBS:
        raise InvalidRequest(FieldError(field="other", message=f"give one to {MOST_JOBS - 1} other jobs, each once"))
    results = [found.result or {} for found in (first_job, *(finished_job(session, one) for one in other))]
    bits = {one: 1 << place for place, one in enumerate(job)}
    rows = select(
        func.unnest(SelectionChunk.row_indices).label("row"), case(bits, value=SelectionChunk.job_id).label("bit")
    ).where(SelectionChunk.job_id.in_(job), SelectionChunk.label == MAIN)
    picked = rows.subquery()
    by_row = select(picked.c.row, func.sum(picked.c.bit).cast(Integer).label("jobs")).group_by(picked.c.row).subquery()
    first = func.array_agg(aggregate_order_by(by_row.c.row, by_row.c.row), type_=ARRAY(BigInteger))
    counted = session.execute(select(by_row.c.jobs, func.count(), first[1:SHOWN]).group_by(by_row.c.jobs)).all()
    return Comparison(
        jobs=[
            ComparedJob(
                job_id=one,
                selected=sum(count for jobs, count, _ in counted if jobs & bits[one]),
                shared=[
                    sum(count for jobs, count, _ in counted if jobs & bits[one] and jobs & bits[other]) for other in job
                ],
                alone=sum(count for jobs, count, _ in counted if jobs == bits[one]),
                alone_rows=next((list(rows) for jobs, _, rows in counted if jobs == bits[one]), []),
            )
            for one in job
        ],
        in_all=sum(count for jobs, count, _ in counted if jobs == sum(bits.values())),
        in_any=sum(count for _, count, _ in counted),
        same_rows=len({one.get("fingerprint") for one in results}) == 1,
        same_scale=len({(one.get("sketches"), one.get("alpha")) for one in results}) == 1,
    )
