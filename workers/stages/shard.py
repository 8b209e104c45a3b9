"""Compute the sketches of one shard, or read a range; all workers of the queue `gradients` share a job's shards."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from app.core.contracts.job_plan import JobPlan, ShardPlan
from app.core.contracts.schedule import WindowLimits
from app.core.db.tables import Job, Shard, State
from app.core.lifecycle import counts, leases, limits, measurements, parking
from app.core.lifecycle.measurements import Took
from app.core.lifecycle.turns import Turn
from workers.data.samples import learned
from workers.data.template_server import template_limits
from workers.data.tokenisation import ConversationEncoder
from workers.data.without_prompt import PromptFrame
from workers.gradients.shards import Scored
from workers.gradients.starting_point import StartingPoint, shared_starting_point, starting_point
from workers.models.memory import Work
from workers.runtime.context import current_context
from workers.runtime.failures import JobError
from workers.runtime.task import run_leased
from workers.stages import measuring
from workers.stages.features import Features, needed
from workers.stages.purposes import POOL, purpose_source
from workers.stages.read_range import read_range
from workers.stages.reading import model_directory, samples_of, sketches_of, source_of
from workers.stages.schedule import Asked, carry_out
from workers.stages.window_limits import read_window_limits

if TYPE_CHECKING:
    import uuid

    from workers.data.corpus import Corpus
    from workers.data.samples import Sample, Samples
    from workers.models.proxy import ProxyModel
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.stages.reading import Source

logger = logging.getLogger(__name__)


def run_shard(shard_id: str, dispatch: int) -> None:
    """Do what a shard stands for, and wake its job after the last shard."""
    context = current_context()
    job_id = _job_of(context, shard_id)
    if job_id is None:
        logger.info("shard %s: its job has ended", shard_id)
        return
    run_leased(
        context, Shard, shard_id, dispatch, lambda heartbeat: _work(context, heartbeat, job_id), worker=context.name
    )
    with context.sessions() as session:
        limits.enforce(session, job_id)
        woken = parking.wake_jobs(session, job_id)
    context.queue.put_or_leave(woken)


def _job_of(context: WorkerContext, shard_id: str) -> uuid.UUID | None:
    with context.sessions() as session:
        shard = session.get(Shard, shard_id)
        return None if shard is None else shard.job_id


def _work(context: WorkerContext, heartbeat: LeaseHeartbeat, job_id: uuid.UUID) -> None:
    with context.sessions() as session:
        plan = JobPlan.load(session.get_one(Job, job_id).plan)
    if plan.ranges is not None:
        read_range(context, heartbeat, job_id, plan.ranges)
    else:
        _sketch(context, heartbeat, job_id)


def _sketch(context: WorkerContext, heartbeat: LeaseHeartbeat, job_id: uuid.UUID) -> None:
    began = time.monotonic()
    with context.sessions() as session:
        shard, job = session.get_one(Shard, heartbeat.lease.id), session.get_one(Job, job_id)
        plan, turn = ShardPlan.load(job.plan), Turn(job.project_id, job.priority)
    own = source_of(context, job_id)
    source = own
    if plan.role != POOL:
        source = purpose_source(context, job_id, own, plan.role, plan.beside.get(plan.role))
    corpus = _corpus(context, heartbeat, source, plan.corpus, plan.pieces if source is own else None)
    store = sketches_of(context, source.request, plan.sketches, corpus, plan.shard_rows)
    config = source.gradients
    work = Work(corpus.longest()[1], context.settings.shard_rows, config.sketch_dim)
    model = _model(context, heartbeat, source, plan, work)
    config = replace(config, token_budget=model.batch_tokens(context.settings.token_budget))
    if own.request.schedule is not None:
        bound = own.request.selection.constraints is not None
        limits = read_window_limits(context.artifacts, job_id) if bound else WindowLimits()
        _carry_out(context, heartbeat, Asked(own, own.request.schedule, corpus, model, config, limits, turn))
        return

    def all_samples() -> Samples:
        own_corpus = corpus if source is own else samples_of(context, own, plan.pieces, heartbeat.should_stop)
        return learned(own_corpus, config.loss_over)

    def start() -> StartingPoint:
        if not config.prepared:
            return StartingPoint(source.adapter)

        def prepared() -> StartingPoint:
            return starting_point(model, config, all_samples(), source.adapter, heartbeat.should_stop)

        return shared_starting_point(context.artifacts, store.key, prepared)

    engine = context.engine(model, config, store.key, start)
    store.keep_scored(Scored(engine.left_out, model.weights_stored_as))
    places = store.wanted(shard.number)  # what another job has computed meanwhile is left out
    meter = heartbeat.begin(len(places), "samples")
    started = time.monotonic()
    samples = [learned(corpus, config.loss_over)[int(place)] for place in places]
    if samples:
        sketches = engine.sketch(
            samples,
            unprompted=without_prompts(context, source, model, samples) if config.prompt_effect else None,
            on_batch=lambda batch: meter.add(batch.samples, tokens=batch.tokens),
            should_stop=heartbeat.should_stop,
        )
        store.write(shard.number, places, sketches)
    kind = measuring.of_gradients(context, source.request, config, model.revision)
    took = Took(len(places), meter.tokens, float(max(meter.tokens, 1)), time.monotonic() - started)
    before = Took(len(places), meter.tokens, 1.0, started - began)
    pool = plan.pool or store.dataset
    features = Features(context.artifacts, model, engine, store.key, pool, all_samples, heartbeat.should_stop)
    features.keep(needed(own.request.selection, plan.role, pool), store, shard.number, corpus)
    with context.sessions() as session:
        if leases.finish(session, heartbeat.lease, State.SUCCEEDED, samples=len(places), tokens=meter.tokens):
            counts.add(session, {(counts.SAMPLES, ()): len(places), (counts.TOKENS, ()): meter.tokens})
            if samples:
                measurements.note(session, kind, took)
                measurements.note(session, replace(kind, stage=measuring.STARTING), before)
        session.commit()


def _model(
    context: WorkerContext, heartbeat: LeaseHeartbeat, source: Source, plan: ShardPlan, work: Work
) -> ProxyModel:
    """The proxy, which must be what the job began with, and so must its adapter.

    Raises:
        JobError: It is another one.
    """
    if source.gradients.adapter != plan.adapter:
        raise _changed("gradients.adapter", context, "adapter")
    wanted = source.request.model
    path = model_directory(context, source.model, wanted.dtype, heartbeat.should_stop)
    model = context.model(path, wanted.dtype, work, spread=wanted.devices == "all")
    if model.revision != plan.model:
        raise _changed("model.uri", context, "model")
    return model


def _carry_out(context: WorkerContext, heartbeat: LeaseHeartbeat, asked: Asked) -> None:
    """All windows of a job with a schedule, which are one unit of work."""
    if asked.config.prompt_effect:
        asked = replace(asked, without_prompts=partial(without_prompts, context, asked.source, asked.model))
    tokens = carry_out(context, heartbeat, asked)
    with context.sessions() as session:
        if leases.finish(session, heartbeat.lease, State.SUCCEEDED, tokens=tokens):
            counts.add(session, {(counts.SAMPLES, ()): len(asked.corpus), (counts.TOKENS, ()): tokens})
        session.commit()


def without_prompts(context: WorkerContext, source: Source, model: ProxyModel, samples: list[Sample]) -> list[Sample]:
    """The samples without their prompts."""
    longest = source.request.model.max_length
    encoder = ConversationEncoder(
        model.tokenizer, longest, template_limits(context.settings), source.request.model.chat_template
    )
    frame = PromptFrame.of(encoder, model.tokenizer)
    return [frame.alone(sample, longest) for sample in samples]


def _changed(field: str, context: WorkerContext, what: str) -> JobError:
    return JobError(
        f"{what}-changed",
        f"The {what} has changed",
        field,
        f"is another revision on {context.name} than the job began with: submit again",
    )


def _corpus(
    context: WorkerContext, heartbeat: LeaseHeartbeat, source: Source, digest: str, pieces: str | None
) -> Corpus:
    """The job's samples: those in memory, or of the pieces that were read, or of the dataset."""
    if context.corpus is None or context.corpus.digest != digest:
        context.corpus = samples_of(context, source, pieces, heartbeat.should_stop)
    if context.corpus.digest != digest:
        raise JobError(
            "tokens-differ",
            "Workers disagree about the samples",
            "dataset",
            f"{context.name} reads other tokens than the worker that planned the job: run one version of the service",
        )
    return context.corpus
