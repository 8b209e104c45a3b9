"""A selection that trains the proxy as it goes: one worker takes window after window of a shuffled pool.

It scores a window with the proxy as it is then, picks from it, and after so many windows trains the proxy on their
picks. With each training it keeps a checkpoint beside the sketches: whoever goes on, after a death or for another job
that asks for the same, picks what would have been picked. So it may be handed back at a checkpoint: others wait for as
many rows as a shard has, not for hours.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.schedule import ScheduleState, ScoredWindow, TrainedStep, WindowLimits
from app.core.storage import schedule_name, schedule_point_name
from workers.data.samples import learned
from workers.data.stopping import Stopped
from workers.gradients.checked_tensors import pack, unpack
from workers.gradients.checkpoint import Checkpoint, pack_checkpoints, unpack_checkpoints
from workers.gradients.engine import GradientEngine
from workers.gradients.passes import Passes, stop_poll
from workers.gradients.shards import Scored, ShardStore
from workers.gradients.starting_point import AdamState, StartingPoint
from workers.gradients.warmup import Training
from workers.runtime.failures import JobError
from workers.runtime.giving_way import others_wait
from workers.selection import (
    Constraints,
    Course,
    Selection,
    Shares,
    WindowShares,
    select,
    select_in_order,
    select_in_window,
)
from workers.selection.seeds import random_permutation
from workers.stages.candidates import must_be_usable
from workers.stages.limits import FIELD, check_possible, impossible
from workers.stages.part import selection_config
from workers.stages.reading import key_for
from workers.stages.window_limits import window_limits_of
from workers.statistics.row_figures import length_factors
from workers.training.steps import linear_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from app.core.contracts.schedule import Schedule
    from app.core.contracts.selection_request import SelectionSpec
    from app.core.lifecycle.turns import Turn
    from app.core.storage import ArtifactStore
    from workers.data.corpus import Corpus
    from workers.data.samples import Sample
    from workers.gradients.config import GradientConfig
    from workers.gradients.engine import Sketches
    from workers.models.proxy import ProxyModel
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.selection import Progress, SelectionConfig, Sources
    from workers.stages.candidates import Candidates
    from workers.stages.limits import Membership
    from workers.stages.reading import Source

logger = logging.getLogger(__name__)

VERSION = 1
"""Bumped whenever the same schedule would pick other rows."""
_PICKED_BY = ("method", "fisher", "alpha", "conflict_penalty", "normalize", "early_stop_ratio", "seed")
_APART = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that no two places have the same product with it."""


def windows_of(schedule: Schedule, samples: int) -> list[NDArray[np.int64]]:
    """Places of the samples of each window, in the order in which they are picked from."""
    order = random_permutation(samples, seed=schedule.seed, role="schedule/rows", layer="")
    return [order[start : start + schedule.windows] for start in range(0, samples, schedule.windows)]


def picks_of_window(schedule: Schedule, candidates: int) -> int:
    """How many rows are picked of a window with so many candidates."""
    return min(schedule.keep, max(1, schedule.keep * candidates // schedule.windows))


def picks_by_window(schedule: Schedule, limits: WindowLimits, samples: int) -> list[int]:
    """How many rows each window picks, unless something ends it early."""
    may, must = np.ones(samples, dtype=np.bool_), np.zeros(samples, dtype=np.bool_)
    may[list(limits.barred)], must[list(limits.include)] = False, True
    return [
        min(int(may[window].sum()), max(picks_of_window(schedule, len(window)), int(must[window].sum())))
        for window in windows_of(schedule, samples)
    ]


def check_windows(spec: SelectionSpec, schedule: Schedule, membership: Membership, corpus: Corpus) -> None:
    """Refuse what no picks of the windows can meet; which rows have a gradient is not known yet.

    Args:
        spec: The request's.
        schedule: Its windows.
        membership: What its constraints are about.
        corpus: The rows.

    Raises:
        JobError: A source that no row has, or whose rows lie in too few windows, or too few rows are left.
        ConstraintError: The constraints can't be met.
    """
    limits, samples = window_limits_of(spec, membership, corpus), len(corpus)
    counts, shares = picks_by_window(schedule, limits, samples), _shares(limits)
    check_possible(spec, membership, corpus, sum(counts))
    if shares is None or spec.early_stop_ratio is not None:  # fewer picks may have the shares that so many can't
        return
    reached, sources = np.zeros(len(shares.names), dtype=np.int64), shares.of_row.copy()
    sources[list(limits.barred)] = len(shares.names)
    for window, count in zip(windows_of(schedule, samples), counts, strict=True):
        there = np.bincount(sources[window], minlength=len(shares.names) + 1)[:-1]
        reached += np.minimum(there, count)
    wanted = shares.of(sum(counts))
    _check_shares(wanted, np.minimum(reached, wanted.most), f"the {len(counts)} windows can give")


def store_of(
    context: WorkerContext,
    source: Source,
    schedule: Schedule,
    model_revision: str,
    corpus: Corpus,
    limits: WindowLimits,
) -> ShardStore:
    """The sketches of a schedule, each of its row as the proxy was when the row's window came.

    Rows with the same tokens have sketches of their own here: their windows differ.
    """
    spec = source.request.selection.model_dump(mode="json")
    made_from = {
        "version": VERSION,
        "sketches": key_for(source, model_revision, corpus),
        "rows": corpus.digest,
        "schedule": schedule.model_dump(mode="json"),
        "selection": {name: spec[name] for name in _PICKED_BY},
    }
    if limits != WindowLimits():
        made_from["limits"] = hashlib.sha256(limits.model_dump_json().encode()).hexdigest()
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    digests = corpus.digests.copy()
    digests[:, 0] ^= np.arange(len(digests), dtype=np.uint64) * _APART
    return ShardStore(
        context.artifacts,
        key,
        digests=digests,
        sketch_dim=source.request.gradients.sketch_dim,
        shard_rows=context.settings.shard_rows,
        stored_as=source.request.gradients.store,
    )


def outcome_of(artifacts: ArtifactStore, key: str) -> ScheduleState | None:
    """What a schedule came to; None before its end, and where what was kept is damaged."""
    content = artifacts.read(schedule_name(key))
    found = None if content is None else unpack(content)
    return None if found is None else ScheduleState.model_validate_json(found.metadata["state"])


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A schedule and what it is carried out on.

    Attributes:
        source: What the job reads.
        schedule: As it was asked for.
        corpus: The samples.
        model: The proxy.
        config: What is sketched.
        limits: What the picks keep to.
        turn: Whose it is.
        without_prompts: Makes samples without their prompts, where their losses are asked for.
    """

    source: Source
    schedule: Schedule
    corpus: Corpus
    model: ProxyModel
    config: GradientConfig
    limits: WindowLimits
    turn: Turn
    without_prompts: Callable[[list[Sample]], list[Sample]] | None = None


def carry_out(context: WorkerContext, heartbeat: LeaseHeartbeat, asked: Asked) -> int:
    """Take all windows that are left, and keep the outcome.

    Args:
        context: This worker.
        heartbeat: Of the job's unit.
        asked: The schedule.

    Returns:
        Tokens of all rows, whoever scored them; 0 where that is the work of another job.

    Raises:
        JobError: A step of the training, or a row that has to be picked, had no finite gradient, or the picks came
            out with other shares of the sources than they have to have.
        Stopped: The work is to end early, or others wait and have not had a turn for as many rows as a shard has. The
            last checkpoint stays.
    """
    store = store_of(context, asked.source, asked.schedule, asked.model.revision, asked.corpus, asked.limits)
    if outcome_of(context.artifacts, store.key) is not None and not store.missing():
        return 0
    run = _Run(context, heartbeat, asked, store)
    run.take_up()
    meter = heartbeat.begin(len(run.windows), "windows", done=len(run.state.windows))
    while len(run.state.windows) < len(run.windows):
        tokens = run.take_window()
        meter.add(1, tokens=tokens)
        if run.may_be_handed_back() and others_wait(context, asked.turn):
            logger.info("schedule %s: it gives way after window %d", store.key, len(run.state.windows))
            raise Stopped
    run.keep_point()
    run.check_shares()
    context.artifacts.write(schedule_name(store.key), pack({}, {"state": run.state.model_dump_json()}))
    context.artifacts.remove(schedule_point_name(store.key))
    return int(asked.corpus.lengths.sum())


@dataclass(slots=True)
class _Waiting:
    """Sketches of windows since the last checkpoint.

    Attributes:
        places: Of their samples.
        sketches: Theirs.
    """

    places: list[NDArray[np.int64]] = field(default_factory=list)
    sketches: list[Sketches] = field(default_factory=list)


class _Run:
    """One worker's turn at a schedule."""

    def __init__(self, context: WorkerContext, heartbeat: LeaseHeartbeat, asked: Asked, store: ShardStore) -> None:
        schedule, self._corpus = asked.schedule, asked.corpus
        self._samples = learned(asked.corpus, asked.config.loss_over)
        self.state = ScheduleState()
        self.windows = windows_of(schedule, len(asked.corpus))
        self._context, self._heartbeat, self._store = context, heartbeat, store
        self._schedule, self._spec = schedule, asked.source.request.selection
        self._without_prompts = asked.without_prompts
        self._limits, samples = asked.limits, len(asked.corpus)
        self._may = np.ones(samples, dtype=np.bool_)
        self._may[list(asked.limits.barred)] = False
        self._include = np.array(asked.limits.include, dtype=np.int64)
        order = np.empty(samples, dtype=np.int64)
        order[np.concatenate(self.windows)] = np.arange(samples)
        self._window_of = order[self._include] // schedule.windows
        self._shares = _shares(asked.limits)
        self._planned = sum(picks_by_window(schedule, asked.limits, samples))
        self._held = self._of_sources(())
        # The engine asks whether there is a trained adapter, not how long it was trained.
        config = replace(asked.config, warmup_steps=1)
        passes = Passes(asked.model.model, replace(config, loss_normalization="sum"))
        self._training = Training(passes, config, schedule.weight_decay)
        self._engine = GradientEngine(asked.model, config, StartingPoint(self._training.adapter()))
        steps = len(self.windows) // schedule.train_every * schedule.epochs
        self._rates = linear_rates(steps, largest=schedule.learning_rate, warmup_ratio=schedule.warmup_ratio)
        self._waiting = _Waiting()
        self._kept = 0
        store.keep_scored(Scored(self._engine.left_out, asked.model.weights_stored_as))

    def take_up(self) -> None:
        """Go on at the last checkpoint, if there is one that is whole and so are the sketches before it."""
        content = self._context.artifacts.read(schedule_point_name(self._store.key))
        found = None if content is None else _unpacked(content, self._store.key)
        if found is None:
            return
        point, state = found
        done = np.concatenate([np.empty(0, dtype=np.int64), *self.windows[: len(state.windows)]])
        lacking = [self._store.lacking(shard) for shard in self._store.missing()]
        if np.isin(np.concatenate([np.empty(0, dtype=np.int64), *lacking]), done).any():
            return
        self.state, self._held = state, self._of_sources(row for window in state.windows for row in window.picks)
        adam = point.adam
        self._training.go_on(point.adapter, adam.first, adam.second, adam.steps)
        self._engine.start_from(StartingPoint(point.adapter))
        logger.info("schedule %s: it goes on at window %d", self._store.key, len(state.windows))

    def may_be_handed_back(self) -> bool:
        """Whether a checkpoint has just been kept, as many rows as a shard has were scored, and windows are left."""
        left = len(self.state.windows) < len(self.windows)
        return left and not self._waiting.places and self._kept >= self._store.shard_rows

    def take_window(self) -> int:
        """Score the next window and pick from it, and train if it is time to; the tokens of the window."""
        number = len(self.state.windows)
        places = self.windows[number]
        samples = [self._samples[place] for place in places.tolist()]
        sketches = self._engine.sketch(
            samples,
            unprompted=None if self._without_prompts is None else self._without_prompts(samples),
            should_stop=self._heartbeat.should_stop,
        )
        self._waiting.places.append(places)
        self._waiting.sketches.append(sketches)
        window = self._picked(number, places, sketches)
        self.state = self.state.model_copy(update={"windows": (*self.state.windows, window)})
        self._held = self._held + self._of_sources(window.picks)
        if (number + 1) % self._schedule.train_every == 0:
            self._train()
            self.keep_point()
        elif sum(map(len, self._waiting.places)) >= self._store.shard_rows:
            self.keep_point()
        return sum(sample.tokens for sample in samples)

    def _picked(self, number: int, places: NDArray[np.int64], sketches: Sketches) -> ScoredWindow:
        """Pick from a window."""
        lost = self._include[np.isin(self._include, places[~sketches.finite])]
        if len(lost):
            raise must_be_usable(int(self._corpus.rows[lost[0]]), f"{FIELD}.include")
        may = sketches.finite & self._may[places]
        candidates, values, losses = places[may], sketches.values[may], sketches.token_losses[may]
        must = _places_in(candidates, self._include)
        told = {
            "rows": len(values),
            "steps": len(self.state.steps),
            "loss": float(losses.mean()) if len(losses) else None,
        }
        nothing = ScoredWindow(**told, alpha=None, stop_reason="exhausted")
        if not len(must) and not values.any():
            return nothing
        norms = np.linalg.norm(values.astype(np.float64), axis=1)
        spec = self._spec
        factors = length_factors(norms, spec.normalize)
        scaled = values if factors is None else (values * factors[:, None]).astype(np.float32)
        count = min(max(picks_of_window(self._schedule, len(places)), len(must)), len(values))
        config = selection_config(spec, budget=count, device=str(self._context.device))
        config = replace(config, seed=(spec.seed + number) % 2**63)  # or `random` would draw the same places each time
        found = self._select(number, candidates, must, scaled, norms, config)
        if found is None:
            return nothing
        return ScoredWindow(
            **told,
            alpha=found.alpha,
            stop_reason=found.stop_reason,
            picks=tuple(self._corpus.rows[candidates[found.indices]].tolist()),
            gains=tuple(found.marginal_gains.tolist()),
            epsilons=tuple(found.epsilons.tolist()),
            conflicts=tuple(found.conflicts.tolist()),
        )

    def _select(
        self,
        number: int,
        candidates: NDArray[np.int64],
        must: NDArray[np.int64],
        values: NDArray[np.float32],
        norms: NDArray[np.float64],
        config: SelectionConfig,
    ) -> Selection | None:
        """Select from a window's candidates within the limits; None where the shares let none of them in.

        Args:
            number: Of the window.
            candidates: Their places, shape (m,).
            must: Which of them have to be picked, by their places among the candidates.
            values: What is selected from, shape (m, p).
            norms: Lengths of their sketches, shape (m,).
            config: With as many rows as are picked at most.
        """
        limits = Constraints(include=must, near_cosine=self._limits.near_cosine)

        def run(rows: int | None, sources: Sources | None) -> Selection:
            within = replace(limits, sources=sources)
            bound = within if within.bind else None
            asked = replace(config, budget=rows)
            return select(values, asked, bound, norms=norms, should_stop=self._heartbeat.should_stop)

        count = config.budget or len(candidates)
        if self._shares is None:
            return run(count, None)
        later = self._of_sources(self._corpus.rows[self._include[self._window_of > number]])
        course = Course(self._held, later, self._planned, last=number + 1 == len(self.windows))
        shares = WindowShares.of_window(self._shares, course, candidates, norms > 0, must)
        found = select_in_window(run, shares, count)
        if found is not None and len(found.indices) < count and found.stop_reason == "budget":
            return replace(found, stop_reason="exhausted")
        return found

    def _of_sources(self, picks: Iterable[int]) -> NDArray[np.int64]:
        """How many of some picks are of each source."""
        if self._shares is None:
            return np.empty(0, dtype=np.int64)
        places = np.searchsorted(self._corpus.rows, np.array([*picks], dtype=np.int64))
        return np.bincount(self._shares.of_row[places], minlength=len(self._shares.names))

    def check_shares(self) -> None:
        """Refuse picks of other shares than they have to have, by the numbers of all that were picked.

        Raises:
            JobError: The windows had too few rows of a source left, or of the others.
        """
        if self._shares is None:
            return
        limits = self._shares.of(int(self._held.sum()))
        _check_shares(limits, self._held, f"the {len(self.windows)} windows gave")

    def _train(self) -> None:
        """Train the proxy on the picks of the latest windows."""
        latest = self.state.windows[-self._schedule.train_every :]
        rows = np.array([row for window in latest for row in window.picks], dtype=np.int64)
        samples = [self._samples[place] for place in np.searchsorted(self._corpus.rows, rows).tolist()]
        poll = stop_poll(self._heartbeat.should_stop)
        for _ in range(self._schedule.epochs if samples else 0):
            done = self.state.steps
            rate = float(self._rates[len(done)])
            loss = self._training.step(samples, rate, poll)
            if not math.isfinite(loss):
                raise JobError(
                    "loss-not-finite",
                    "The loss is not a finite number",
                    "schedule.learning_rate",
                    f"step {len(done) + 1} of {len(self._rates)}, after {len(self.state.windows)} windows, has no "
                    "finite gradient: lower it, or use model.dtype float32",
                )
            step = TrainedStep(windows=len(self.state.windows), rows=len(rows), loss=loss, learning_rate=rate)
            self.state = self.state.model_copy(update={"steps": (*done, step)})
        self._engine.start_from(StartingPoint(self._training.adapter()))

    def keep_point(self) -> None:
        """Keep the sketches so far, then the checkpoint, which replaces the one before."""
        if self._waiting.places:
            places = np.concatenate(self._waiting.places)
            self._store.write(int(places[0]) // self._store.shard_rows, places, _joined(self._waiting.sketches))
            self._kept += len(places)
            self._waiting = _Waiting()
        adam = AdamState(*self._training.moments(), self._training.steps)
        point = Checkpoint(self._training.adapter(), adam)
        self._context.artifacts.write(schedule_point_name(self._store.key), _packed(point, self.state, self._store.key))


def selection_of(
    state: ScheduleState,
    candidates: Candidates,
    config: SelectionConfig,
    limits: Constraints | None,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Selection:
    """A schedule's picks in their order, measured as a whole over the sketches that they were picked by.

    Args:
        state: The outcome.
        candidates: All rows that could be picked.
        config: As the request has it.
        limits: What the picks had to keep to. The proof is about the best subset without the rows that are excluded.
        on_progress: As for `select`.
        should_stop: As for `select`.
    """
    rows = np.array([row for window in state.windows for row in window.picks], dtype=np.int64)
    order = np.searchsorted(candidates.rows, rows)
    measured = replace(config, budget=len(order), method="fisher", fisher="exact", early_stop_ratio=None)
    without = None if limits is None else Constraints(exclude=limits.exclude)
    found = select_in_order(
        candidates.values, order, measured, without, on_progress=on_progress, should_stop=should_stop
    )
    reasons = {window.stop_reason for window in state.windows}
    return replace(found, stop_reason=next(one for one in ("early_stop", "exhausted", "budget") if one in reasons))


def _shares(limits: WindowLimits) -> Shares | None:
    """The shares by source; None where no source is limited."""
    if not limits.sources:
        return None
    of_row = np.array(limits.of_row, dtype=np.int64)
    return Shares(limits.sources, of_row, np.array(limits.least), np.array(limits.most))


def _check_shares(limits: Sources, rows: NDArray[np.int64], gave: str) -> None:
    """Refuse numbers of rows of each source, shape (g,), that are beyond the limits."""
    for name, least, most, count in zip(limits.names, limits.least, limits.most, rows, strict=True):
        if not least <= count <= most:
            raise impossible(
                f"{FIELD}.sources",
                f"source {name!r}: the picks need {least} to {most} of its rows, and {gave} {count}: make the windows "
                "larger (schedule.windows), so that each has rows of every source, or the shares wider",
            )


def _places_in(window: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in a window some of its samples are, in their own order; those of other windows nowhere."""
    there, order = wanted[np.isin(wanted, window)], np.argsort(window)
    return order[np.searchsorted(window, there, sorter=order)]


def _joined(sketches: Sequence[Sketches]) -> Sketches:
    """Those of several windows as those of one."""
    first = type(sketches[0])
    names = ("values", "losses", "finite", "token_losses", "unprompted", "end_losses")
    return first(**{name: np.concatenate([getattr(one, name) for one in sketches]) for name in names})


def _packed(point: Checkpoint, state: ScheduleState, key: str) -> bytes:
    return pack_checkpoints([point], {"key": key, "state": state.model_dump_json()})


def _unpacked(content: bytes, key: str) -> tuple[Checkpoint, ScheduleState] | None:
    """What `_packed` packed; None where it is damaged or another's."""
    found = unpack_checkpoints(content, {"key": key})
    if found is None:
        return None
    return found.checkpoints[0], ScheduleState.model_validate_json(found.about["state"])
