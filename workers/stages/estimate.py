"""What a job would take: everything that can be checked without its gradients is, and its time and memory told.

The rows are read as a job reads them, all of them or a sample, so that what is wrong with them fails the estimate as it
would fail the job.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.estimate import Estimate as EstimateContract
from app.core.contracts.estimate import EstimatedSeconds, EstimateProblem, Seconds
from app.core.contracts.job_plan import JobPlan
from app.core.contracts.job_request import JobRequest
from app.core.db.tables import Dataset, Estimate, Stage, State
from app.core.lifecycle import fleet, leases, quotas
from workers.data.corpus import build_corpus, find_corpus
from workers.data.rejection import NO_FAULT, enforce_limit
from workers.data.row_sample import row_sample
from workers.data.sources import source_column
from workers.models.architecture import check_length
from workers.models.device import beside, device_name
from workers.models.fetch import limits_of
from workers.models.memory import Work, check_memory, memory_needed
from workers.runtime.context import current_context
from workers.runtime.failures import understood
from workers.runtime.task import run_leased
from workers.stages.candidates import picks_about
from workers.stages.decontamination import evaluation_of, held_against
from workers.stages.extending import kept_of, with_kept
from workers.stages.job_reading import over_quota
from workers.stages.job_sketches import check_enough_scored, drawn_within
from workers.stages.limits import check_possible, read_membership
from workers.stages.purposes import purpose_source, purposes_of, read_purpose
from workers.stages.reading import (
    dataset_snapshot,
    key_for,
    model_directory,
    note_shortest,
    sketches_of,
    source_for,
    tokenising,
)
from workers.stages.schedule import check_windows, outcome_of, picks_by_window, store_of
from workers.stages.stage_times import Ahead, stage_times
from workers.stages.window_limits import window_limits_of
from workers.statistics.durations import NOTHING

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from app.core.contracts.schedule import WindowLimits
    from workers.data.corpus import Corpus
    from workers.data.fetch import Snapshot
    from workers.data.row_sample import RowSample
    from workers.models.tokenizer import ModelTokenizer
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.stages.limits import Kept, Membership
    from workers.stages.reading import Source
    from workers.statistics.durations import Expected

DOUBT = 1.96
"""Standard errors: the share of rejected rows of a sample is told to within them 19 times of 20."""
SKETCH_BYTES = 17
"""Of each row of a shard besides its sketch: four losses, and whether it is finite."""
SCORES_BYTES = 40
"""Of each usable row in the table of scores, about."""


@dataclass(frozen=True, slots=True)
class _Missing:
    """Gradients that a job would compute.

    Attributes:
        rows: Rows whose sketches it would make.
        tokens: Their tokens.
        shards: Shards of these.
        left_out: Rows without sketches that its limit leaves without.
    """

    rows: int
    tokens: int
    shards: int
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class _Looked:
    """What a look at the data gave.

    Attributes:
        source: What the job would read.
        path: The model's directory.
        model: Its tokenizer.
        snapshot: The dataset.
        sample: Its rows, or some.
        ahead: What the job has still to do, within its limits.
        picks: How many rows it would pick without limits.
        kept: The picks of an earlier job that it keeps; None where none is extended.
        membership: What its constraints are about; None where not all rows were read.
        overlapping: Numbers of the rows read that share text with the evaluation set; None without such a set.
    """

    source: Source
    path: Path
    model: ModelTokenizer
    snapshot: Snapshot
    sample: RowSample
    ahead: Ahead
    picks: int
    kept: Kept | None
    membership: Membership | None
    overlapping: NDArray[np.int64] | None


def run_estimate(estimate_id: str, dispatch: int) -> None:
    """Estimate what a job would take, or say what keeps it from running."""
    context = current_context()
    run_leased(context, Estimate, estimate_id, dispatch, lambda heartbeat: _estimate(context, heartbeat))


def _estimate(context: WorkerContext, heartbeat: LeaseHeartbeat) -> None:
    with context.sessions() as session:
        asked = session.get_one(Estimate, heartbeat.lease.id)
        dataset = None if asked.dataset_id is None else session.get(Dataset, asked.dataset_id)
    source = source_for(context, understood(JobRequest, asked.request), dataset, asked.project_id, JobPlan())
    with _looked(context, source, heartbeat) as looked:
        _check_purpose(context, looked, heartbeat, asked.project_id)
        told = _told(context, looked, heartbeat.should_stop)
    with context.sessions() as session:
        leases.finish(session, heartbeat.lease, State.SUCCEEDED, content=told.model_dump(mode="json"))
        session.commit()


@contextmanager
def _looked(context: WorkerContext, source: Source, heartbeat: LeaseHeartbeat) -> Iterator[_Looked]:
    """Read the rows, and fail as a job would."""
    request, should_stop = source.request, heartbeat.should_stop
    path = model_directory(context, source.model, request.model.dtype, should_stop)
    model = context.tokenizers.get(path)
    snapshot = dataset_snapshot(context, source.uri, source.fingerprint, recalled=False, should_stop=should_stop)
    source_column(snapshot, context.settings, request.dataset.source_column)
    how = tokenising(context, request)
    found = find_corpus(snapshot, model.tokenizer, **how)

    def tokenise(there: Snapshot) -> Corpus:
        return build_corpus(there, model.tokenizer, **how, should_stop=should_stop)

    with row_sample(
        snapshot, context.settings, found=found, tokenise=tokenise, rows=source.rows, should_stop=should_stop
    ) as sample:
        corpus = sample.corpus
        enforce_limit(
            corpus.rejected,
            corpus.rows_total,
            _limit(request.dataset.max_rejected_fraction, sample),
            said=corpus.said,
            needed=corpus.needed,
        )
        usable = sample.scaled(len(corpus))
        # Which picks a job keeps that it extends is known of whole datasets alone.
        extends = request.extends if sample.whole else None
        kept = None if extends is None else kept_of(context, extends, corpus)
        picks = picks_about(request.selection.budget, corpus.lengths, usable, 0 if kept is None else len(kept.rows))
        check_length(*corpus.longest(), model.longest)
        membership, overlapping = _membership(context, source, snapshot, sample, kept, heartbeat)
        limits = None
        if request.schedule is not None and membership is not None:
            limits = window_limits_of(request.selection, membership, corpus)
            picks = sum(picks_by_window(request.schedule, limits, len(corpus)))
        missing = _missing(context, source, model, sample, limits)
        scored = usable - missing.left_out
        ahead = Ahead(
            rows=sample.rows_total,
            usable=usable,
            scored=scored,
            tokens=sample.scaled(corpus.tokens),
            missing_rows=missing.rows,
            missing_tokens=missing.tokens,
            shards=missing.shards,
            picks=picks if scored == usable else _picks_of_scored(request, sample, picks, scored),
            read_before=sample.whole,
        )
        yield _Looked(source, path, model, snapshot, sample, ahead, picks, kept, membership, overlapping)


def _membership(
    context: WorkerContext,
    source: Source,
    snapshot: Snapshot,
    sample: RowSample,
    kept: Kept | None,
    heartbeat: LeaseHeartbeat,
) -> tuple[Membership | None, NDArray[np.int64] | None]:
    """What the constraints are about, None where not all rows are read; and which rows share text with the set."""
    spec, corpus, settings, stop = source.request.selection, sample.corpus, context.settings, heartbeat.should_stop
    evaluation = evaluation_of(context, heartbeat.lease.id, source, stop)
    overlapping = None if evaluation is None else evaluation.rows_of(sample.snapshot, corpus.shape, settings, stop)
    if not sample.whole:
        return None, overlapping
    note_shortest(context, source.request, corpus)
    membership = read_membership(snapshot, corpus, spec, source.request.dataset, settings, stop)
    if kept is not None:
        membership = with_kept(membership, kept)
    if evaluation is not None and overlapping is not None:
        membership = held_against(membership, overlapping, evaluation)
    return membership, overlapping


def _check_purpose(context: WorkerContext, looked: _Looked, heartbeat: LeaseHeartbeat, project_id: uuid.UUID) -> None:
    """Fail as a job would by what its selection is for and by the rows of it all; by constraints where all are read."""
    source, spec = looked.source, looked.source.request.selection
    rows = looked.ahead.rows
    for role, purpose in purposes_of(spec).items():
        beside = purpose_source(context, heartbeat.lease.id, source, role, None)
        rows += read_purpose(context, role, purpose, beside, heartbeat.should_stop).corpus.rows_total
    with context.sessions() as session:
        excess = quotas.excess_of_rows(session, project_id, context.settings, rows)
    if excess is not None:
        raise over_quota(excess)
    if looked.membership is None:
        return
    if source.request.schedule is not None:
        check_windows(spec, source.request.schedule, looked.membership, looked.sample.corpus)
    else:
        budget = None if spec.budget.tokens is not None else looked.picks
        check_possible(spec, looked.membership, looked.sample.corpus, budget)


def _limit(fraction: float, sample: RowSample) -> float:
    """The share of rejected rows beyond which a job fails, or of a sample: beyond which it fails almost surely."""
    if sample.whole:
        return fraction
    return min(1.0, fraction + DOUBT * math.sqrt(fraction * (1 - fraction) / sample.corpus.rows_total))


def _missing(
    context: WorkerContext,
    source: Source,
    model: ModelTokenizer,
    sample: RowSample,
    limits: WindowLimits | None,
) -> _Missing:
    """The gradients that are not there, as far as the job's limit lets it compute them.

    Args:
        context: This worker.
        source: What the job reads.
        model: Its tokenizer.
        sample: Its rows, or some.
        limits: Those of a schedule.
    """
    corpus, shard_rows, schedule = sample.corpus, context.settings.shard_rows, source.request.schedule
    if not sample.whole:
        rows, tokens = sample.scaled(len(corpus)), sample.scaled(corpus.tokens)
        shards = 1 if schedule is not None else -(-rows // shard_rows)
        drawn = _drawn(source, [tokens // max(shards, 1)] * shards)
        share = len(drawn) / max(shards, 1)
        return _Missing(round(share * rows), round(share * tokens), len(drawn), rows - round(share * rows))
    if schedule is not None and limits is not None:  # one worker takes all its rows, and knows none before all are
        scheduled = store_of(context, source, schedule, model.revision, corpus, limits)
        there = outcome_of(context.artifacts, scheduled.key)
        return _Missing(len(corpus), corpus.tokens, 1) if there is None else _Missing(0, 0, 0)
    store = sketches_of(context, source.request, key_for(source, model.revision, corpus), corpus)
    shards_missing = store.missing()
    places = [store.lacking(shard) for shard in shards_missing]
    sizes = [int(corpus.lengths[one].sum()) for one in places]
    made = _drawn(source, sizes)
    without = np.delete(np.array(shards_missing, dtype=np.int64), made)
    return _Missing(
        rows=sum(len(places[place]) for place in made),
        tokens=sum(sizes[place] for place in made),
        shards=len(made),
        left_out=int(store.left_out(without.tolist()).sum()),
    )


def _drawn(source: Source, sizes: list[int]) -> list[int]:
    """Places of the shards, of so many tokens each, that the job's limit of tokens lets it make: all without one."""
    asked = source.request.limits
    if asked is None or asked.gradient_tokens is None:
        return list(range(len(sizes)))
    return drawn_within(asked.gradient_tokens, len(sizes), sizes.__getitem__, seed=source.gradients.seed)[0]


def _picks_of_scored(request: JobRequest, sample: RowSample, picks: int, scored: int) -> int:
    """How many rows are picked of those that are scored before the limit; none where the job stops there.

    Args:
        request: With the limit.
        sample: What was read.
        picks: How many there would be without the limit.
        scored: Rows that have sketches then.

    Raises:
        JobError: The budget is a count, and fewer rows are scored.
    """
    if request.limits is None or request.limits.on_limit == "stop":
        return 0
    budget = request.selection.budget
    if budget.count is None:
        picks = picks_about(budget, sample.corpus.lengths, scored, 0)
    elif sample.whole:
        check_enough_scored(budget, scored, len(sample.corpus), "gradient_tokens")
    return min(picks, scored)


def _told(context: WorkerContext, looked: _Looked, should_stop: Callable[[], bool]) -> EstimateContract:
    ahead, source, sample = looked.ahead, looked.source, looked.sample
    shared, overlapping = looked.overlapping, None
    if shared is not None:
        overlapping = sample.scaled(len(np.intersect1d(shared, sample.corpus.rows)))
    memory = _memory(context, looked)
    with context.sessions() as session:
        alive = fleet.alive(session)
    workers = max(1, alive["gradients"])
    times, basis = stage_times(context, source, looked.path, looked.sample.corpus, ahead, workers, should_stop)
    total = NOTHING
    for one in times.values():
        total = total.plus(one)
    problems = [*_problems(looked), *_partitions(looked, alive["selection"]), *_limits(looked, times, total)]
    return EstimateContract(
        rows=ahead.rows,
        rows_rejected=ahead.rows - ahead.usable,
        rows_sampled=looked.sample.corpus.rows_total,
        tokens=ahead.tokens,
        gradient_rows=ahead.missing_rows,
        gradient_tokens=ahead.missing_tokens,
        rows_overlapping=overlapping,
        selected=min(ahead.picks, ahead.usable - (overlapping or 0)),
        seconds=EstimatedSeconds(
            **_rounded(total), stages={name: Seconds(**_rounded(one)) for name, one in times.items()}
        ),
        bytes=_bytes(looked),
        memory_bytes=memory,
        device=device_name(context.device),
        workers=workers,
        basis=basis,
        problems=problems,
    )


def _problems(looked: _Looked) -> list[EstimateProblem]:
    """What the job may fail by, as far as a sample tells, and what its result would be poorer for."""
    corpus, request = looked.sample.corpus, looked.source.request
    faulty = sum(len(rows) for reason, rows in corpus.rejected.items() if reason not in NO_FAULT)
    limit = request.dataset.max_rejected_fraction
    problems = []
    if not looked.sample.whole and faulty > limit * corpus.rows_total:
        problems.append(
            EstimateProblem(
                field="dataset.max_rejected_fraction",
                message=f"is {limit:.1%}, and {faulty:,} of {corpus.rows_total:,} rows of a sample can't be used: "
                "repair the rows, or allow a larger share",
            )
        )
    if corpus.truncated > len(corpus) / 2:
        problems.append(
            EstimateProblem(
                field="model.max_length",
                message=f"is {request.model.max_length:,}, and {corpus.truncated:,} of {len(corpus):,} rows lose the "
                "end of their response to it: set it higher",
            )
        )
    return problems


def _partitions(looked: _Looked, workers: int) -> list[EstimateProblem]:
    """Where random parts can't be faster than one selection: docs/scaling.md has the arithmetic."""
    parts, ahead = looked.source.request.selection.partitions, looked.ahead
    if parts is None:
        return []
    if workers <= 1:
        message = f"is {parts}, and one worker selects: it would work on the parts one after the other; leave it out"
    elif ahead.picks * parts >= ahead.usable:
        message = (
            f"is {parts}, and a part has about {ahead.usable // parts:,} rows, no more than the {ahead.picks:,} "
            "that are to be picked: the merge would select from all rows again; leave it out, or take fewer parts"
        )
    else:
        return []
    return [EstimateProblem(field="selection.partitions", message=message)]


def _limits(looked: _Looked, times: Mapping[str, Expected], total: Expected) -> list[EstimateProblem]:
    """Limits of the job's own that it would come to."""
    request, ahead = looked.source.request, looked.ahead
    asked, problems = request.limits, []
    if asked is not None:
        then = "the job fails as limit-reached, and what was computed is kept"
        if asked.on_limit == "select":
            then = "the job selects from those that are scored"
        left_out = ahead.usable - ahead.scored
        if left_out:
            message = f"is {asked.gradient_tokens:,}, and leaves {left_out:,} rows without gradients: {then}"
            problems.append(EstimateProblem(field="limits.gradient_tokens", message=f"{message}; raise it for more"))
        begun_s = times[Stage.READING].likely + times[Stage.GRADIENTS].likely
        if asked.seconds is not None and ahead.shards > 1 and begun_s > asked.seconds:
            message = f"is {asked.seconds:g}, and all gradients take about {begun_s:.3g} s: {then}"
            problems.append(EstimateProblem(field="limits.seconds", message=f"{message}; raise it for more"))
    if request.timeout_s is not None and total.likely > request.timeout_s:
        message = f"is {request.timeout_s:g}, and the job takes about {total.likely:.3g} s: raise it"
        problems.append(EstimateProblem(field="timeout_s", message=message))
    return problems


def _bytes(looked: _Looked) -> int:
    """Sketches that are not there, the picked rows twice (as they are, and as text), and the table of scores."""
    ahead, dim = looked.ahead, looked.source.gradients.sketch_dim
    row = looked.snapshot.bytes / max(1, ahead.rows)
    sketches = ahead.missing_rows * (4 * dim + SKETCH_BYTES)
    return round(sketches + 2 * ahead.picks * row + ahead.usable * SCORES_BYTES)


def _rounded(expected: Expected) -> dict[str, float]:
    return {name: round(getattr(expected, name), 3) for name in ("low", "likely", "high")}


def _memory(context: WorkerContext, looked: _Looked) -> int:
    """Bytes of the larger of two stages: the model with its longest row, or the matrix that is selected from.

    Raises:
        ModelTooLarge: The model does not fit.
    """
    source = looked.source
    model = source.request.model
    work = Work(
        looked.sample.corpus.longest()[1],
        min(looked.ahead.usable, context.settings.shard_rows),
        source.gradients.sketch_dim,
    )
    further = beside(context.device)
    devices = [context.device, *(further if model.devices == "all" else ())]
    needed = memory_needed(looked.path, dtype=model.dtype, work=work, limits=limits_of(context.settings))
    check_memory(looked.path.name, needed, work, devices, dtype=model.dtype, others=len(further))
    return max(needed.total(work.row_tokens), looked.ahead.usable * source.gradients.sketch_dim * 4)
