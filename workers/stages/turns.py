"""Take waiting rows from Postgres, the most urgent first, until none waits. A message of the queue starts this."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

from app.core.db.tables import Dataset, Estimate, Job, Part, Preview, Proof, ProofRun, Repair, Shard
from app.core.lifecycle import turns
from app.core.queue import KINDS
from workers.runtime.context import current_context
from workers.runtime.tidying import tidy
from workers.stages.estimate import run_estimate
from workers.stages.job import run_job
from workers.stages.part import run_part
from workers.stages.preview import run_preview
from workers.stages.registration import register_dataset
from workers.stages.repair import run_repair
from workers.stages.shard import run_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.core.lifecycle.leases import Work
    from app.core.lifecycle.turns import Turn
    from workers.runtime.context import WorkerContext


def _prove(proof_id: str, dispatch: int) -> None:
    from workers.stages.proof import run_proof  # noqa: PLC0415 - what trains and compares takes seconds to import

    run_proof(proof_id, dispatch)


def _carry_out(run_id: str, dispatch: int) -> None:
    from workers.stages.proof_run import run_proof_run  # noqa: PLC0415 - as above

    run_proof_run(run_id, dispatch)


STAGES: Final[dict[Work, Callable[[str, int], None]]] = {
    Dataset: register_dataset,
    Estimate: run_estimate,
    Preview: run_preview,
    Job: run_job,
    Part: run_part,
    Proof: _prove,
    Repair: run_repair,
    Shard: run_shard,
    ProofRun: _carry_out,
}


TIDY_EVERY_S: Final = 600
"""Seconds; RQ tidies an idle worker as often."""


def take_turns() -> None:
    """The queue's entry: work on waiting rows until none is left or the process is told to stop."""
    context = current_context()
    tables = [table for table in STAGES if KINDS[table] in context.settings.worker_queues]
    tidied = time.monotonic()
    context.take_turn = partial(_take_turn, context, tables)
    while not context.stopping.is_set() and _take_turn(context, tables):
        if time.monotonic() - tidied > TIDY_EVERY_S:
            tidy(context)
            tidied = time.monotonic()


def _take_turn(context: WorkerContext, tables: Sequence[Work], *, during: Turn | None = None) -> bool:
    """Take the row whose turn it is, and work on it; False if none waits."""
    with context.sessions() as session:
        waiting = turns.next_row(session, tables, during)
    if waiting is None:
        return False
    STAGES[waiting.table](str(waiting.id), waiting.dispatch)
    return True
