"""The picks of an earlier job, found again in the pool of a job that extends it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from app.core.db import selections
from app.core.storage import Damaged, picks_name, read_checked
from workers.gradients.row_index import NOWHERE
from workers.runtime.failures import JobError
from workers.stages.limits import Kept

if TYPE_CHECKING:
    import uuid

    from workers.data.corpus import Corpus
    from workers.runtime.context import WorkerContext
    from workers.stages.limits import Membership

FIELD = "extends"


def kept_of(context: WorkerContext, job: uuid.UUID, corpus: Corpus) -> Kept:
    """Look the picks of a job up in a pool, by what the model reads of each row.

    Raises:
        JobError: Which rows the job picked is not kept any more, or damaged.
        StorageFailed: The store does not answer.
    """
    try:
        content = read_checked(context.artifacts, picks_name(job))
    except Damaged as error:
        remedy = f"GET /jobs/{job}/subset?since={job} has it made again: ask for it until it answers, then submit again"
        raise JobError(
            "extended-job-damaged", "The picks to extend are damaged", FIELD, f"{error}: {remedy}"
        ) from error
    if content is None:
        raise JobError(
            "extended-job-gone",
            "The job to extend is gone",
            FIELD,
            f"which rows job {job} picked is not kept any more: submit that job again, and extend the new one",
        )
    places = context.pool_of(corpus).places_of(np.frombuffer(content, dtype="<u8").reshape(-1, 2))
    there = places != NOWHERE
    if there.all():
        return Kept(job, corpus.rows[places].astype(np.int64), np.empty(0, dtype=np.int64))
    numbers = [int(row) for chunk in selections.stream_column(context.sessions, job, "indices") for row in chunk]
    if len(numbers) != len(places):
        raise JobError("extended-job-gone", "The job to extend is gone", FIELD, f"job {job} was deleted meanwhile")
    return Kept(job, corpus.rows[places[there]].astype(np.int64), np.array(numbers, dtype=np.int64)[~there])


def with_kept(membership: Membership, kept: Kept) -> Membership:
    """The same, with an earlier job's picks before all others that have to be picked.

    Raises:
        JobError: One of them may not be picked.
    """
    both = kept.rows[np.isin(kept.rows, membership.exclude)]
    if len(both):
        raise JobError(
            "constraints-impossible",
            "The constraints can't be met",
            "selection.constraints.exclude",
            f"excludes row {both[0]}, which job {kept.job} picked and extends keeps: leave it out of exclude, or "
            "select anew without extends",
        )
    further = membership.include[~np.isin(membership.include, kept.rows)]
    return replace(membership, include=np.concatenate([kept.rows, further]), kept=kept)
