"""Parts of a job's rows: making them for a partitioned selection, and merging what was picked from each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.core.lifecycle import parking
from app.core.storage import candidates_name
from workers.runtime.failures import JobError
from workers.selection import partition, settle
from workers.stages.job_selecting import config_for
from workers.stages.objective import PartsInput, write_parts_input

if TYPE_CHECKING:
    from workers.stages.candidates import Candidates
    from workers.stages.job_sketches import JobSketches
    from workers.stages.leased_job import LeasedJob
    from workers.stages.objective import Objective

MOST_SPLITS = 3
"""Times that a job makes parts: more than one means that shards were damaged while the parts were read."""


def park_for_parts(job: LeasedJob, sketches: JobSketches, candidates: Candidates, objective: Objective) -> None:
    """Make parts of the samples, and park the job until each part is selected from.

    Raises:
        JobError: Parts were made too often.
        Stopped: The job was cancelled or lost meanwhile.
    """
    splits, own = sketches.plan.splits + 1, sketches.own
    if splits > MOST_SPLITS:
        raise JobError(
            "sketches-vanish",
            "The sketches do not stay",
            "selection",
            f"shards were damaged when their parts were read, {MOST_SPLITS} times: check the artifact store",
        )
    spec = job.request.selection
    asked = config_for(job, candidates, objective)
    limits = objective.limits.before(asked.budget)
    config = settle(objective.values, asked, limits, should_stop=job.should_stop)
    sizes = [len(rows) for rows in partition(len(candidates.rows), spec.partitions or 1, spec.seed)]
    files, file, row = own.store.places()
    at = np.searchsorted(own.reading.corpus.rows, candidates.rows)
    write_parts_input(
        job.context.artifacts,
        candidates_name(job.id),
        PartsInput(files, file[at], row[at], candidates.factors, objective.bearings.metric, limits),
    )
    plan = sketches.plan.model_copy(
        update={
            **sketches.planned(own),
            "parted_at": sketches.plan.parted_at or job.now(),
            "splits": splits,
            "behind": None,
            "work": None,
            "candidates": len(candidates.rows),
            "parts": len(sizes),
            "picks": config.budget,
            "alpha": config.alpha,
        }
    )
    budgets = {number: min(config.budget or size, size) for number, size in enumerate(sizes)}
    job.park(parking.PARTS, budgets, plan)
