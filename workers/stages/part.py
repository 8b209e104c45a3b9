"""Select from one part of a job's samples; the workers of a partitioned selection each take parts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

import numpy as np

from app.core.contracts.job_plan import PartPlan
from app.core.contracts.job_request import JobRequest
from app.core.contracts.selection_request import ORDERED_METHODS
from app.core.db.tables import Job, Part, State
from app.core.lifecycle import leases, parking
from app.core.lifecycle.turns import Turn
from app.core.storage import candidates_name
from workers.gradients.shards import ShardDamaged, gather, sketch_files
from workers.runtime.context import current_context
from workers.runtime.failures import ProblemError, understood
from workers.runtime.giving_way import GivingWay
from workers.runtime.task import run_leased
from workers.selection import SelectionConfig, partition, select_part
from workers.stages.objective import limits_in_part, read_parts_input, turned
from workers.statistics.row_figures import kept_and_scaled

if TYPE_CHECKING:
    import uuid

    from numpy.typing import NDArray

    from app.core.contracts.selection_request import Method as AnyMethod
    from app.core.contracts.selection_request import SelectionSpec
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.selection import Method
    from workers.stages.objective import PartsInput

logger = logging.getLogger(__name__)


def run_part(part_id: str, dispatch: int) -> None:
    """Select from a part, and wake its job after the last part."""
    context = current_context()
    with context.sessions() as session:
        part = session.get(Part, part_id)
    if part is None:
        logger.info("part %s: its job has ended", part_id)
        return
    job_id = part.job_id
    run_leased(
        context, Part, part_id, dispatch, lambda heartbeat: _select(context, heartbeat, job_id), worker=context.name
    )
    with context.sessions() as session:
        woken = parking.wake_jobs(session, job_id)
    context.queue.put_or_leave(woken)


def climbing(method: AnyMethod) -> Method:
    """The method as the selector knows it: what only orders rows is measured as the plain log-det."""
    return "fisher" if method in ORDERED_METHODS else cast("Method", method)


def selection_config(
    spec: SelectionSpec, *, budget: int | None, device: str, alpha: float | None = None
) -> SelectionConfig:
    """A request as the selector takes it; `alpha` if it is settled."""
    return SelectionConfig(
        budget=budget,
        conflict_penalty=spec.conflict_penalty,
        alpha=spec.alpha if alpha is None else alpha,
        early_stop_ratio=spec.early_stop_ratio,
        method=climbing(spec.method),
        seed=spec.seed,
        fisher=spec.fisher,
        curvature=spec.curvature,
        device=device,
    )


def _select(context: WorkerContext, heartbeat: LeaseHeartbeat, job_id: uuid.UUID) -> None:
    with context.sessions() as session:
        part = session.get_one(Part, heartbeat.lease.id)
        job = session.get_one(Job, job_id)
    request, plan = understood(JobRequest, job.request), PartPlan.load(job.plan)
    config = selection_config(request.selection, budget=plan.picks, device=str(context.device), alpha=plan.alpha)
    given = read_parts_input(context.artifacts, candidates_name(job_id))
    if given is None:
        raise _damaged("the list of rows to pick from is missing or damaged")
    rows = partition(plan.candidates, plan.parts, config.seed)[part.number]
    if given.constraints is not None:
        rows = np.union1d(rows, given.constraints.include)
    sketches = _sketches(context, heartbeat, plan, request.gradients.sketch_dim, given, rows)
    meter = heartbeat.begin(part.budget, "picks")
    giving_way = GivingWay(context, Turn(job.project_id, job.priority))

    def should_stop() -> bool:
        giving_way.look()
        return heartbeat.should_stop()

    picked = select_part(
        turned(sketches, given.metric),
        np.arange(len(rows)),
        config,
        limits_in_part(given.constraints, rows, sketches, given.metric),
        on_progress=lambda progress: meter.at(progress.done) if progress.stage == "picking" else None,
        should_stop=should_stop,
    )
    with context.sessions() as session:
        leases.finish(
            session,
            heartbeat.lease,
            State.SUCCEEDED,
            picks=rows[picked.indices].tolist(),
            gains=picked.marginal_gains.tolist(),
        )
        session.commit()


def _sketches(
    context: WorkerContext,
    heartbeat: LeaseHeartbeat,
    plan: PartPlan,
    sketch_dim: int,
    given: PartsInput,
    rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """The part's sketches, at the lengths that are selected from, shape (m, p), read a shard at a time."""
    store, places = sketch_files(context.artifacts, plan.sketches), (given.files, given.file[rows], given.row[rows])
    try:
        values = gather(store, places, sketch_dim, heartbeat.should_stop)
    except ShardDamaged as error:
        raise _damaged(str(error)) from error
    return kept_and_scaled(values, np.arange(len(rows)), None if given.factors is None else given.factors[rows])


def _damaged(detail: str) -> ProblemError:
    return ProblemError({"type": parking.DAMAGED, "title": "Sketches are damaged", "detail": detail})
