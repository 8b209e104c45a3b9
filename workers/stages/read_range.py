"""Turn one range of a job's dataset into tokens; all workers of the queue `gradients` share a job's ranges."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from app.core.db.tables import Shard, State
from app.core.lifecycle import leases
from workers.data.fetch import recall
from workers.data.fetch_ranges import RangesNotThere, fetched_ranges
from workers.stages.pieces import Pieces
from workers.stages.reading import dataset_snapshot, source_of, tokenising, tokenizer_of

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator

    from app.core.contracts.job_plan import RangesPlan
    from workers.data.fetch import Snapshot
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.stages.reading import Source

logger = logging.getLogger(__name__)


def read_range(context: WorkerContext, heartbeat: LeaseHeartbeat, job_id: uuid.UUID, plan: RangesPlan) -> None:
    """Read the range that a shard stands for, and finish the shard.

    Raises:
        JobError: The dataset has changed.
        DatasetError: The range can't be read.
        Stopped: The job was cancelled, or another worker has the shard.
    """
    with context.sessions() as session:
        number = session.get_one(Shard, heartbeat.lease.id).number
    source = source_of(context, job_id)
    pieces = Pieces(context.artifacts, plan.key, tokenising(context, source.request))
    if pieces.cut is None:
        logger.warning("job %s: how its dataset is cut has been deleted, so it is read as a whole", job_id)
    elif not pieces.has(number):
        tokenizer = tokenizer_of(context, source, heartbeat.should_stop).tokenizer
        with _ranges(context, source, pieces, number, heartbeat.should_stop) as snapshot:
            pieces.make(number, snapshot, tokenizer, heartbeat.should_stop)
    with context.sessions() as session:
        leases.finish(session, heartbeat.lease, State.SUCCEEDED)
        session.commit()


@contextmanager
def _ranges(
    context: WorkerContext, source: Source, pieces: Pieces, number: int, should_stop: Callable[[], bool]
) -> Iterator[Snapshot]:
    """What a piece is read from: the dataset, if it is on this machine or must be fetched whole, else its ranges."""
    here = None if source.fingerprint is None else recall(source.uri, source.fingerprint, context.settings)
    if here is None and pieces.cut is not None:
        with ExitStack() as stack:
            try:
                part = stack.enter_context(
                    fetched_ranges(source.uri, pieces.cut, pieces.ranges(number), context.settings, should_stop)
                )
            except RangesNotThere as error:
                logger.warning("the dataset is fetched whole: %s", error)
            else:
                yield part
                return
    yield dataset_snapshot(context, source.uri, source.fingerprint, recalled=True, should_stop=should_stop)
