"""Turn one range of a job's dataset into tokens; all workers of the queue `gradients` share a job's ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.db.tables import Shard, State
from app.core.lifecycle import leases
from workers.stages.pieces import Pieces
from workers.stages.reading import opened, source_of

if TYPE_CHECKING:
    import uuid

    from app.core.contracts.job_plan import RangesPlan
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat


def read_range(context: WorkerContext, heartbeat: LeaseHeartbeat, job_id: uuid.UUID, plan: RangesPlan) -> None:
    """Read the range that a shard stands for, and finish the shard.

    Raises:
        JobError: The dataset has changed.
        DatasetError: The range can't be read.
        Stopped: The job was cancelled, or another worker has the shard.
    """
    with context.sessions() as session:
        number = session.get_one(Shard, heartbeat.lease.id).number
    dataset = opened(context, source_of(context, job_id), heartbeat.should_stop)
    pieces = Pieces.planned(context, dataset.snapshot, plan)
    pieces.make(number, dataset.snapshot, dataset.model.tokenizer, dataset.tokenising, heartbeat.should_stop)
    with context.sessions() as session:
        leases.finish(session, heartbeat.lease, State.SUCCEEDED)
        session.commit()
