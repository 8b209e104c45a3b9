"""Make the files of a finished job again, one of which is not what was published.

The picked rows need the dataset and the picks alone, which are in Postgres. What is told of rows beside their text
needs the sketches as well. A file goes into the store only if it has the bytes that were published, so that what a
client has of it already goes with the rest.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from app.core.contracts.job_plan import JobPlan, LimitReached, RangesPlan
from app.core.contracts.job_request import JobRequest
from app.core.db import selections
from app.core.db.selections import MAIN
from app.core.db.tables import Dataset, Job, Repair, Stage, State
from app.core.lifecycle import leases
from app.core.lifecycle.turns import Turn
from app.core.storage import (
    excerpts_name,
    is_as_published,
    is_damaged,
    picks_name,
    put_checked,
    row_scores_name,
    rows_name,
    suspects_name,
)
from workers.data.stopping import Stopped
from workers.runtime.context import current_context
from workers.runtime.failures import JobError, understood
from workers.runtime.giving_way import GivingWay
from workers.runtime.task import run_leased
from workers.selection import Guarantees, Selection, Stability
from workers.stages.job import published_of
from workers.stages.job_reading import read_job
from workers.stages.job_selecting import JobSelecting, candidates_for, objective_for
from workers.stages.job_sketches import sketches_for
from workers.stages.leased_job import LeasedJob
from workers.stages.published_files import written_files, written_rows
from workers.stages.purposes import POOL, purposes_of
from workers.stages.reading import dataset_snapshot, source_for
from workers.stages.sensitivity import Chosen

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping
    from pathlib import Path

    from app.core.db.tables import Json
    from app.core.lifecycle.parking import Units
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.stages.candidates import Candidates
    from workers.stages.published import Published

logger = logging.getLogger(__name__)


def run_repair(repair_id: str, dispatch: int) -> None:
    """Make again what is damaged of a job's files."""
    context = current_context()
    run_leased(context, Repair, repair_id, dispatch, lambda heartbeat: _repair(context, heartbeat))


def _repair(context: WorkerContext, heartbeat: LeaseHeartbeat) -> None:
    job = _finished_job(context, heartbeat)
    rows = rows_name(job.id, job.result["format"])
    names = (rows, excerpts_name(job.id), row_scores_name(job.id), suspects_name(job.id), picks_name(job.id))
    damaged = {name for name in names if is_damaged(context.artifacts, name)}
    if rows in damaged:
        snapshot = dataset_snapshot(
            context, job.source.uri, job.source.fingerprint, recalled=True, should_stop=job.should_stop
        )
        with written_rows(context.settings, snapshot, job.picked(), job.watch) as file:
            _put_again(context, {rows: file})
        damaged.remove(rows)
    if damaged:
        with written_files(context.settings, job.id, _published_again(job), job.should_stop, job.watch) as files:
            _put_again(context, {name: file for name, file in files.items() if name in damaged})
    with context.sessions() as session:
        leases.finish(session, heartbeat.lease, State.SUCCEEDED)
        session.commit()


def _put_again(context: WorkerContext, files: Mapping[str, Path]) -> None:
    """Replace files that are damaged.

    Raises:
        JobError: One of them has other bytes than were published; the others are replaced all the same.
    """
    others = []
    for name, file in files.items():
        if is_as_published(context.artifacts, name, file):
            put_checked(context.artifacts, name, file)
            logger.warning("%s was damaged, and is as it was published again", name)
        else:
            others.append(name.rpartition("/")[2])
    if others:
        raise JobError(
            "not-as-published",
            "The files came out otherwise",
            "job",
            f"made again, {', '.join(others)} came out otherwise than it was published, as by another release, "
            "or with selection.stability, whose shares of rows that were not picked are kept nowhere else",
        )


@dataclass(frozen=True, slots=True, eq=False)
class FinishedJob(LeasedJob):
    """A finished job of which this worker makes files again, in one turn: what it lacks for that nobody computes.

    Attributes:
        result: Of the job.
    """

    result: Json

    def park(self, units: Units, *_: object, **__: object) -> NoReturn:
        """Refuse to have sketches made.

        Raises:
            JobError: Always.
        """
        raise JobError(
            "sketches-gone",
            "The sketches are gone",
            "job",
            f"{units.unit} of the job are not in the artifact store any more, or damaged themselves",
        )

    def use_sketches(self, key: str, plan: JobPlan) -> NoReturn:
        """Refuse sketches of another key than the job's; raises JobError always."""
        raise JobError(
            "sketches-gone",
            "The sketches are gone",
            "job",
            f"this release looks for the job's sketches as {key}, and the job had {plan.sketches}",
        )

    def watch(self, _written: int) -> None:
        """Raise Stopped once the work is to end."""
        if self.should_stop():
            raise Stopped

    def picked(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Row numbers of the picks in the order of picking, shape (k,)."""
        return np.concatenate(
            [
                np.asarray(chunk, dtype=np.int64)
                for chunk in selections.stream_column(self.context.sessions, self.id, "indices")
            ]
        )


def _finished_job(context: WorkerContext, heartbeat: LeaseHeartbeat) -> FinishedJob:
    """The job of a repair, as a turn at it would begin; raises as `source_for`."""
    with context.sessions() as session:
        job = session.get_one(Job, session.get_one(Repair, heartbeat.lease.id).job_id)
        dataset = None if job.dataset_id is None else session.get(Dataset, job.dataset_id)
        session.expunge_all()
    request, result = understood(JobRequest, job.request), dict(job.result or {})
    plan = _plan_of(request, result)
    return FinishedJob(
        id=job.id,
        context=context,
        heartbeat=heartbeat,
        source=source_for(context, request, dataset, job.project_id, plan),
        plan=plan,
        turn=Turn(job.project_id, job.priority),
        failure=None,
        parts=(),
        computed={POOL: 0},
        seconds={Stage.READING: 0.0},
        result=result,
    )


def _plan_of(request: JobRequest, result: Json) -> JobPlan:
    """What the job had found out, as far as its result tells."""
    limited = result.get("limited")
    return JobPlan(
        fingerprint=result["fingerprint"],
        sketches=result["sketches"],
        beside={role: result[role]["fingerprint"] for role in purposes_of(request.selection) if role in result},
        # As after ranges were read: a dataset whose pieces are gone by now is read as a whole.
        ranges=RangesPlan(key=""),
        limited=None
        if limited is None
        else LimitReached(limit=limited["limit"], value=limited["value"], used=limited["used"]),
    )


def _published_again(job: FinishedJob) -> Published:
    """What the job has published, of the picks that it has stored and the sketches that it has selected from."""
    reading = read_job(job)
    assert reading is not None  # noqa: S101 - `park` refuses
    sketches = sketches_for(job, reading)
    unscored = sketches.unscored(verify=False)
    loaded = None if unscored is None else sketches.load(unscored)
    assert unscored is not None  # noqa: S101 - likewise
    assert loaded is not None  # noqa: S101 - likewise
    candidates = candidates_for(job, reading, loaded[POOL])
    objective = objective_for(job, reading, candidates, loaded)
    selecting = JobSelecting(job, candidates, objective, GivingWay(job.context, job.turn))
    chosen = _stored(job.context, job.id, job.result, candidates)
    figures = selecting.methods(sketches, loaded, unscored).figures
    return published_of(selecting, reading, sketches, sketches.scored(unscored), chosen, figures)


def _stored(context: WorkerContext, job_id: uuid.UUID, result: Json, candidates: Candidates) -> Chosen:
    """The picks that the job has stored; shares of reselections are known of these alone."""
    chunks = list(selections.stream(context.sessions, job_id))

    def column(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.concatenate([np.asarray(getattr(chunk, name), dtype=np.float64) for chunk in chunks])

    rows = np.concatenate([np.asarray(chunk.indices, dtype=np.int64) for chunk in chunks])
    places = np.searchsorted(candidates.rows, rows)
    if not np.isin(rows, candidates.rows).all():
        raise JobError("sketches-gone", "The sketches are gone", "job", "picks are not among the rows with sketches")
    guarantees = result["certificate"]
    main = Selection(
        indices=places,
        marginal_gains=column("marginal_gains"),
        epsilons=column("epsilons"),
        conflicts=column("conflicts"),
        log_det=column("log_det"),
        alpha=result["alpha"],
        stop_reason=result["stop_reason"],
        guarantees=Guarantees(
            certificate=guarantees["value"],
            **{name: guarantees[name] for name in Guarantees.__dataclass_fields__ if name != "certificate"},
        ),
        weights=None if chunks[0].weights is None else column("weights"),
    )
    if chunks[0].stability is None:
        return Chosen({MAIN: main}, None)
    shares = np.full(len(candidates.rows), np.nan)
    shares[places] = column("stability")
    return Chosen({MAIN: main}, None, stability=Stability(shares, 0, 0, 0))
