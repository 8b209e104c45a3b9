"""Compute the sketches of one shard: what the workers of a job's gradients do, each on its own machine."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from app.core.db.tables import Job, Shard, State
from app.core.lifecycle import counts, leases, shards
from workers.gradients.shards import ShardStore
from workers.gradients.starting_point import StartingPoint, shared_starting_point, starting_point
from workers.runtime.context import current_process
from workers.runtime.failures import JobError
from workers.runtime.task import run_leased
from workers.stages.reading import have_model, read, source_of

if TYPE_CHECKING:
    import uuid

    from workers.data.corpus import Corpus
    from workers.runtime.context import Process
    from workers.runtime.heartbeat import Keeper
    from workers.stages.reading import Source

logger = logging.getLogger(__name__)


def run_shard(shard_id: str, dispatch: int) -> None:
    """The queue's entry: compute a shard, and wake its job if it was the last."""
    process = current_process()
    job_id = _job_of(process, shard_id)
    if job_id is None:
        logger.info("shard %s: its job has ended", shard_id)
        return
    run_leased(process, Shard, shard_id, dispatch, lambda keeper: _sketch(process, keeper, job_id), worker=process.name)
    with process.sessions() as session:
        woken = shards.wake(session, job_id)
    process.queue.put_or_leave(woken)


def _job_of(process: Process, shard_id: str) -> uuid.UUID | None:
    with process.sessions() as session:
        shard = session.get(Shard, shard_id)
        return None if shard is None else shard.job_id


def _sketch(process: Process, keeper: Keeper, job_id: uuid.UUID) -> None:
    with process.sessions() as session:
        shard = session.get_one(Shard, keeper.lease.id)
        plan = session.get_one(Job, job_id).plan or {}
    source = source_of(process, job_id)
    corpus = _corpus(process, keeper, source, plan["corpus"])
    store = ShardStore(
        process.artifacts,
        plan["sketches"],
        samples=len(corpus),
        sketch_dim=source.gradients.sketch_dim,
        shard_rows=process.settings.shard_rows,
    )
    config = replace(source.gradients, token_budget=process.settings.token_budget)
    if config.adapter != plan.get("adapter"):
        raise _changed("gradients.adapter", process, "adapter")
    path = have_model(process, source.model, source.request.model.dtype, keeper.should_stop)
    model = process.model(path, source.request.model.dtype)
    if model.revision != plan["model"]:
        raise _changed("model.uri", process, "model")

    def start() -> StartingPoint:
        if not config.prepared:
            return StartingPoint(source.adapter)
        return shared_starting_point(
            process.artifacts,
            store.key,
            lambda: starting_point(model, config, corpus, source.adapter, keeper.should_stop),
        )

    engine = process.engine(model, config, store.key, start)
    meter = keeper.begin(shard.samples, "samples")
    sketches = engine.sketch(
        [corpus[i] for i in store.rows(shard.number)],
        on_batch=lambda batch: meter.add(batch.samples, tokens=batch.tokens),
        should_stop=keeper.should_stop,
    )
    store.write(shard.number, sketches)
    with process.sessions() as session:
        if leases.finish(session, keeper.lease, State.SUCCEEDED):
            counts.add(session, {(counts.SAMPLES, ()): shard.samples, (counts.TOKENS, ()): meter.tokens})
        session.commit()


def _changed(field: str, process: Process, what: str) -> JobError:
    return JobError(
        f"{what}-changed",
        f"The {what} has changed",
        field,
        f"is another revision on {process.name} than the job began with: submit again",
    )


def _corpus(process: Process, keeper: Keeper, source: Source, digest: str) -> Corpus:
    """The job's samples: the ones in memory, or made out of the dataset once more on this machine."""
    if process.corpus is None or process.corpus.digest != digest:
        process.corpus = read(process, source, keeper.should_stop).corpus
    if process.corpus.digest != digest:
        raise JobError(
            "tokens-differ",
            "Workers disagree about the samples",
            "dataset",
            f"{process.name} reads other tokens than the worker that planned the job: run one version of the service",
        )
    return process.corpus
