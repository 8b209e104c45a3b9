"""How long the stages of a job will take: by how long they took earlier, or by a probe.

What is told is the time on a service that has nothing else to do: a job that waits for others takes longer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from app.core.db.tables import Stage
from app.core.lifecycle import measurements
from workers.data.stopping import Stopped
from workers.gradients.starting_point import StartingPoint
from workers.gradients.warmup import BATCH_ROWS
from workers.models.memory import Work
from workers.runtime.failures import JobError
from workers.selection import SelectionConfig, select
from workers.stages import measuring
from workers.stages.shard import without_prompts
from workers.statistics.durations import NOTHING, Expected, expected_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.core.lifecycle.measurements import Kind
    from workers.data.corpus import Corpus
    from workers.data.samples import Sample
    from workers.gradients.passes import BatchDone
    from workers.runtime.context import WorkerContext
    from workers.stages.reading import Source

Basis = Literal["earlier jobs", "probe"]

PROBE_S = 20.0
"""Seconds that the gradients of some rows may take for an estimate; the model's loading comes before."""
PROBED_ROWS = 256
FIRST_ROWS = 4
"""Rows whose gradients are not timed: the first pass sets up what the others use."""
TIMED_AT_ONCE = 32
"""At most: as few as the first rows to begin with and twice as many each time, so that a slow machine has times too."""
PROBED_SELECTION = (2000, 100)
"""Rows and picks of a selection that is made for an estimate."""
UNSURE = 1.5
"""Low and high of a probe are its time divided by this and times it."""
PROBE_KEY = "probe"


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a job has still to do.

    Attributes:
        rows: Rows of the dataset.
        usable: Those that can be used.
        scored: Of these, those that have sketches in the end: all, unless a limit leaves some out.
        tokens: Tokens of the usable rows.
        missing_rows: Rows whose sketches are to be computed.
        missing_tokens: Their tokens.
        shards: Shards of these.
        picks: Rows to pick; 0 where a limit ends the job before.
        read_before: Whether this machine has the tokens by now.
    """

    rows: int
    usable: int
    scored: int
    tokens: int
    missing_rows: int
    missing_tokens: int
    shards: int
    picks: int
    read_before: bool


def stage_times(
    context: WorkerContext,
    source: Source,
    path: Path,
    corpus: Corpus,
    ahead: Ahead,
    workers: int,
    should_stop: Callable[[], bool],
) -> tuple[dict[str, Expected], Basis]:
    """Seconds of each stage, and what those of the gradients come from.

    Args:
        context: This worker.
        source: What the job reads.
        path: The model's directory.
        corpus: Its samples, or some.
        ahead: What is to be done.
        workers: Workers that compute gradients.
        should_stop: True gives up.

    Raises:
        ModelError: The model can't be used.
        JobError: The gradients of twice `FIRST_ROWS` take longer than `PROBE_S`.
        Stopped: `should_stop` said so.
    """
    revision = context.tokenizers.get(path).revision
    gradients, basis = _gradients(context, source, path, revision, corpus, ahead, workers, should_stop)
    return {
        str(Stage.READING): _reading(context, source, revision, ahead),
        str(Stage.GRADIENTS): gradients,
        str(Stage.SELECTING): _selecting(context, source, ahead, should_stop),
        str(Stage.PUBLISHING): _publishing(context, source, ahead),
    }, basis


def _earlier(
    context: WorkerContext, kind: Kind, size: float, units: int = 1, *, length: float = 0.0
) -> Expected | None:
    """By how long the same took before; `length`: mean tokens of a row, where rows of like length count most."""
    with context.sessions() as session:
        took = measurements.newest(session, kind)
    alike = [abs(np.log(max(one.tokens, 1) / max(one.rows, 1) / length)) for one in took] if length else ()
    return expected_seconds([one.size for one in took], [one.seconds for one in took], size, units=units, alike=alike)


def _gradients(  # noqa: PLR0913, PLR0917 - one for each thing that decides it
    context: WorkerContext,
    source: Source,
    path: Path,
    revision: str,
    corpus: Corpus,
    ahead: Ahead,
    workers: int,
    should_stop: Callable[[], bool],
) -> tuple[Expected, Basis]:
    """Seconds until all shards are done; those are shared by the workers, a shard to one of them."""
    if not ahead.shards:
        return NOTHING, "earlier jobs"
    mean = ahead.missing_tokens / ahead.missing_rows
    tokens = ahead.missing_tokens + source.gradients.warmup_steps * BATCH_ROWS * mean
    schedule = source.request.schedule
    if schedule is not None:
        tokens += schedule.epochs * schedule.fraction * ahead.missing_tokens  # what is picked is trained on
    kind = measuring.of_gradients(context, source.request, source.gradients, revision)
    found = _earlier(context, kind, tokens, ahead.shards, length=mean)
    starting = _earlier(context, replace(kind, stage=measuring.STARTING), 1.0) or NOTHING
    basis: Basis = "earlier jobs"
    if found is None:
        basis, likely = "probe", probe(context, source, path, corpus, should_stop) * tokens
        found = Expected(likely / UNSURE, likely, likely * UNSURE)
    rounds = -(-ahead.shards // workers)
    return found.times(rounds / ahead.shards).plus(starting.times(rounds)), basis


def probe(context: WorkerContext, source: Source, path: Path, corpus: Corpus, should_stop: Callable[[], bool]) -> float:
    """Seconds a token, of the gradients of some rows.

    A warm-up and second moments are left out: they change what a gradient is, not how long it takes.
    """
    asked = source.request.model
    work = Work(corpus.longest()[1], PROBED_ROWS, source.gradients.sketch_dim)
    model = context.model(path, asked.dtype, work, spread=asked.devices == "all")
    config = replace(
        source.gradients,
        token_budget=model.batch_tokens(context.settings.token_budget),
        warmup_steps=0,
        preconditioner="none",
    )
    engine = context.engine(model, config, PROBE_KEY, lambda: StartingPoint(source.adapter))
    chosen = np.random.default_rng(0).permutation(len(corpus))[: PROBED_ROWS + FIRST_ROWS].tolist()
    samples = [corpus[place] for place in chosen]
    first, timed = samples[:FIRST_ROWS], samples[FIRST_ROWS:] or samples
    deadline = time.monotonic() + PROBE_S
    done = _Timed()

    def stop() -> bool:
        return should_stop() or time.monotonic() > deadline

    def run(rows: list[Sample], counted: Callable[[BatchDone], None]) -> None:
        unprompted = without_prompts(context, source, model, rows) if config.prompt_effect else None
        engine.sketch(rows, unprompted=unprompted, on_batch=counted, should_stop=stop)

    try:
        run(first, lambda _batch: None)
        done.begin()
        size = FIRST_ROWS
        while timed:
            run(timed[:size], done.add)
            done.end()
            timed, size = timed[size:], min(2 * size, TIMED_AT_ONCE)
    except Stopped:
        if should_stop():
            raise
    if not done.tokens:
        raise JobError(
            "model-too-slow",
            "The model is too slow to be timed",
            "model.uri",
            f"the gradients of {2 * FIRST_ROWS} rows took more than {PROBE_S:g} s on {context.device}: use a smaller "
            "proxy model, or a smaller model.max_length",
        )
    return done.seconds / done.tokens


class _Timed:
    """Tokens that were done, and how long they took."""

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self._began = time.monotonic()
        self._pending = 0

    def begin(self) -> None:
        """Time from here on."""
        self._began = time.monotonic()

    def add(self, batch: BatchDone) -> None:
        """A batch is done; it counts once its rows without their prompts are, too."""
        self._pending += batch.tokens

    def end(self) -> None:
        """All that was added is done."""
        self.tokens, self.seconds = self._pending, time.monotonic() - self._began


def _reading(context: WorkerContext, source: Source, revision: str, ahead: Ahead) -> Expected:
    kind = measuring.of_reading(source.request, revision, found=ahead.read_before)
    found = _earlier(context, kind, float(max(ahead.tokens, 1)), length=ahead.tokens / max(ahead.usable, 1))
    return found or NOTHING


def _selecting(context: WorkerContext, source: Source, ahead: Ahead, should_stop: Callable[[], bool]) -> Expected:
    """By earlier selections of the same kind; else by one of fewer, made-up sketches."""
    if not ahead.picks:
        return NOTHING
    spec, dim = source.request.selection, source.gradients.sketch_dim
    size = measuring.selecting_size(ahead.scored, ahead.picks, dim)
    found = _earlier(context, measuring.of_selecting(context, spec, dim), size)
    if found is not None:
        return found
    rows, picks = min(ahead.scored, PROBED_SELECTION[0]), min(ahead.picks, PROBED_SELECTION[1])
    values = np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)
    config = SelectionConfig(budget=picks, conflict_penalty=spec.conflict_penalty, device=str(context.device))
    began = time.monotonic()
    select(values, config, should_stop=should_stop)
    each = (time.monotonic() - began) / measuring.selecting_size(rows, picks, dim)
    likely = each * size * (1 + len(spec.baselines))
    return Expected(likely / UNSURE**2, likely, likely * UNSURE**2)


def _publishing(context: WorkerContext, source: Source, ahead: Ahead) -> Expected:
    if not ahead.picks:
        return NOTHING
    dim = source.gradients.sketch_dim
    size = measuring.publishing_size(ahead.scored, ahead.picks, dim)
    return _earlier(context, measuring.of_publishing(dim), size) or NOTHING
