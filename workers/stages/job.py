"""The stages of a job: read -> gradients -> select -> publish.

If sketches are missing, `run_job` makes shards for them and parks the job. The worker that ends the last shard wakes
the job; `run_job` then runs again, finds all sketches, selects and publishes. Reading and gradients store files under
names made of their content, so a job also finds the tokens and sketches that another job has made.
"""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from app.core.contracts.job_plan import JobPlan, LimitReached
from app.core.contracts.job_result import Limited
from app.core.db import clock
from app.core.db.selections import MAIN
from app.core.db.tables import Job, Stage
from app.core.lifecycle import measurements, parking, proofs, quotas, sketch_use
from app.core.lifecycle.measurements import Took
from app.core.lifecycle.turns import Turn
from app.core.storage import StorageFailed, candidates_name, rows_prefix
from app.core.telemetry import tracing
from workers.data.rejection import enforce_limit
from workers.data.sources import source_column
from workers.data.stopping import Stopped
from workers.gradients.shards import ShardDamaged
from workers.models.architecture import check_length
from workers.runtime.context import current_context
from workers.runtime.failures import JobError, ProblemError
from workers.runtime.giving_way import GivingWay
from workers.runtime.task import run_leased
from workers.selection import PartPicks, merge, partition, select, settle
from workers.stages import measuring
from workers.stages.candidates import KeptCandidates, candidates_of, picks_among, picks_of, write_candidates
from workers.stages.part import selection_config
from workers.stages.publishing import Published, publish
from workers.stages.reading import key_for, read, sketches_of, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from workers.gradients.shards import ShardStore
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat, Meter
    from workers.selection import Progress, Selection, SelectionConfig
    from workers.stages.candidates import Candidates
    from workers.stages.reading import Reading

logger = logging.getLogger(__name__)

RANDOM_METHODS = frozenset({"random"})
"""Methods whose picks the seed decides: one run of such a baseline says little."""

MOST_ROUNDS = 3
"""Times that a job makes shards: more than one means that sketches vanished or were damaged while it waited."""


def run_job(job_id: str, dispatch: int) -> None:
    """Work on a job until it is parked or ends."""
    context = current_context()

    def discard(job: uuid.UUID) -> None:
        try:
            context.artifacts.remove_all(rows_prefix(job))
        except StorageFailed as error:  # the job ends all the same
            logger.warning("job %s: its rows may have stayed, retention deletes them: %s", job, error)

    run_leased(context, Job, job_id, dispatch, lambda heartbeat: _Run(context, heartbeat).run(), discard)
    with context.sessions() as session:
        parking.drop_units(session)
        session.commit()
        waiting = proofs.wake(session, job_id=uuid.UUID(job_id))
    context.queue.put_or_leave(waiting)


class _Run:
    """One run of `run_job` on a leased job."""

    def __init__(self, context: WorkerContext, heartbeat: LeaseHeartbeat) -> None:
        self.context = context
        self.heartbeat = heartbeat
        self.source = source_of(context, heartbeat.lease.id)
        with context.sessions() as session:
            job = session.get_one(Job, heartbeat.lease.id)
            self.plan = JobPlan.load(job.plan)
            self.failure = parking.shard_error(session, heartbeat.lease.id)
            self.parts = parking.parts_of(session, heartbeat.lease.id)
            self.computed = self.plan.computed + parking.samples_done(session, heartbeat.lease.id)
        self.turn = Turn(job.project_id, job.priority)
        self.seconds: dict[str, float] = dict(self.plan.seconds)
        self.read_anew = False
        self.giving_way: GivingWay | None = None

    def run(self) -> None:
        """Park the job or finish it; an exception ends it in another way."""
        failures = [self.failure, *(part.error for part in self.parts)]
        damaged = any(failure is not None and failure["type"] == parking.DAMAGED for failure in failures)
        for failure in failures:
            if failure is not None and not damaged:
                raise ProblemError(failure)
        first = Stage.READING not in self.seconds
        with self._timed(Stage.READING):
            reading = self._read()
        if first:
            self._note_reading(reading)
        store = self._store(reading)
        missing = store.missing(verify=damaged)
        if missing and self.plan.limited is None:
            self._park(reading, store, missing)
            return
        store.mark_used()
        scored = self._scored(store, missing)
        if self.plan.parked_at is not None and self.plan.parted_at is None:
            self.seconds[Stage.GRADIENTS] = round(self._now() - self.plan.parked_at, 3)
        with self._timed(Stage.SELECTING):
            try:
                candidates = self._load(reading, store, missing)
            except ShardDamaged as error:
                logger.warning("job %s: %s", self.heartbeat.lease.id, error)
                self._park(reading, store, store.missing(verify=True) or [error.shard])
                return
            if self.source.request.selection.partitions is not None and (damaged or not self.parts):
                self._split(reading, store, candidates)
                return
            chosen, repeats = self._select(candidates)
            if self.plan.parted_at is not None:
                self.seconds[Stage.SELECTING] = round(self._now() - self.plan.parted_at, 3)
        published = Published(
            reading=reading,
            candidates=candidates,
            chosen=chosen,
            repeats=repeats,
            selection=self.source.request.selection,
            source_column=source_column(
                reading.snapshot, self.context.settings, self.source.request.dataset.source_column
            ),
            sketches=store.key,
            scored=store.scored(),
            computed=self.computed,
            limited=self._limited(store, scored),
            seconds=self.seconds,
        )
        publish(self.context, self.heartbeat, published)

    def _read(self) -> Reading:
        fetching = self.heartbeat.enter(Stage.READING, None, "bytes")
        counting: list[Meter] = []

        def on_rows(rows: int) -> None:
            self.read_anew = True
            if not counting:
                counting.append(self.heartbeat.enter(Stage.READING, self.source.rows, "rows"))
            counting[0].at(rows)

        reading = read(
            self.context,
            self.source,
            self.heartbeat.should_stop,
            on_bytes=fetching.at,
            on_rows=on_rows,
        )
        self._count(reading.corpus.rows_total)
        wanted = self.source.request
        enforce_limit(
            reading.corpus.rejected,
            reading.corpus.rows_total,
            wanted.dataset.max_rejected_fraction,
            said=reading.corpus.said,
            needed=reading.corpus.needed,
        )
        source_column(reading.snapshot, self.context.settings, wanted.dataset.source_column)
        picks_of(wanted.selection.budget, len(reading.corpus))
        check_length(*reading.corpus.longest(), reading.model.longest)  # a budget that can be met is of one row or more
        self.context.corpus = reading.corpus
        return reading

    def _note_reading(self, reading: Reading) -> None:
        """Keep how long reading took, for the estimates of later jobs."""
        corpus = reading.corpus
        kind = measuring.of_reading(self.source.request, reading.model.revision, found=not self.read_anew)
        took = Took(corpus.rows_total, corpus.tokens, float(max(corpus.tokens, 1)), self.seconds[Stage.READING])
        with self.context.sessions() as session:
            measurements.note(session, kind, took)
            session.commit()

    def _count(self, rows: int) -> None:
        """Count the rows against the project's quota: their number is known only after reading."""
        with self.context.sessions() as session:
            excess = quotas.count_rows(session, self.heartbeat.lease.id, rows, self.context.settings)
        if excess is not None:
            raise JobError("quota-exceeded", "The project's quota is used up", "dataset", excess.message)

    def _store(self, reading: Reading) -> ShardStore:
        key = key_for(self.source, reading.model.revision, reading.corpus)
        self._use(key)
        return sketches_of(self.context, self.source.request, key, reading.corpus)

    def _use(self, key: str) -> None:
        """Protect the sketches from deletion until the job ends, before the job looks for them."""
        if key == self.plan.sketches:
            return
        with self.context.sessions() as session:
            signals = sketch_use.use(session, self.heartbeat.lease, key, self.plan, self.context.settings.lease_s)
        if not signals.held:
            raise Stopped

    def _scored(self, store: ShardStore, missing: list[int]) -> int:
        """How many samples have sketches, where a limit kept the others from getting theirs.

        Raises:
            JobError: The request has the job stop there, or there is nothing to select from.
        """
        scored = store.samples - sum(len(store.rows(shard)) for shard in missing)
        limits, limited = self.source.request.limits, self.plan.limited
        if missing and limits is not None and limited is not None and (limits.on_limit == "stop" or not scored):
            raise JobError(
                "limit-reached",
                "The job has reached its limit",
                f"limits.{limited.limit}",
                f"is {limited.value:g}, and {limited.used:g} were used for {scored:,} of {store.samples:,} rows, whose "
                "gradients are kept: submit again with a larger limit to go on from there, or with limits.on_limit "
                "'select' to select from them",
            )
        return scored

    def _park(self, reading: Reading, store: ShardStore, missing: list[int]) -> None:
        """Let go of the job until what is missing is there: another job computes it already, or its own shards will."""
        rounds = self.plan.rounds + 1
        if rounds > MOST_ROUNDS:
            raise JobError(
                "sketches-vanish",
                "The sketches do not stay",
                "gradients",
                f"{len(missing)} shards were missing or damaged after {MOST_ROUNDS} rounds: check the artifact store",
            )
        sizes = {shard: store.size(shard) for shard in missing}
        allowed, tokens, limited = self._within_limits(reading, store, missing)
        plan = JobPlan(
            **self._of_the_data(reading, store),
            shard_rows=store.shard_rows,
            parked_at=self.plan.parked_at or self._now(),
            rounds=self.plan.rounds,
            computed=self.computed,
        )
        own = {shard: sizes[shard] for shard in allowed}
        made = plan.model_copy(
            update={"rounds": rounds}
            | ({} if tokens is None else {"tokens": tokens})
            | ({} if limited is None else {"limited": limited})
        )
        lease = self.heartbeat.lease
        self.heartbeat.stop()
        with self.context.sessions() as session:
            if parking.park_behind(session, lease, sizes, plan):
                return
            waiting = parking.park_job(session, lease, parking.SHARDS, own, made)
        self.context.queue.put_or_leave(waiting)
        if not waiting:
            raise Stopped

    def _limited(self, store: ShardStore, scored: int) -> Limited | None:
        """What the result says of the limit, if it kept rows from being scored."""
        reached = self.plan.limited
        if reached is None or scored == store.samples:
            return None
        return Limited(**reached.model_dump(), rows_scored=scored, rows_not_scored=store.samples - scored)

    def _within_limits(
        self, reading: Reading, store: ShardStore, missing: list[int]
    ) -> tuple[list[int], int | None, LimitReached | None]:
        """The shards that the limit of tokens lets this job make, the tokens that it has then, and whether that is all.

        At least one is made, and the last of them may go beyond the limit. Which ones are drawn at random, so that they
        speak of all rows.
        """
        limits = self.source.request.limits
        if limits is None or limits.gradient_tokens is None:
            return missing, None, None
        allowed: list[int] = []
        tokens = self.plan.tokens
        for place in np.random.default_rng(self.source.gradients.seed).permutation(len(missing)).tolist():
            if tokens >= limits.gradient_tokens and allowed:
                break
            tokens += int(reading.corpus.lengths[store.lacking(missing[place])].sum())
            allowed.append(missing[place])
        reached = LimitReached(limit="gradient_tokens", value=limits.gradient_tokens, used=tokens)
        return sorted(allowed), tokens, reached if len(allowed) < len(missing) else None

    def _split(self, reading: Reading, store: ShardStore, candidates: Candidates) -> None:
        """Make parts of the samples, and park the job until each part is selected from."""
        splits = self.plan.splits + 1
        if splits > MOST_ROUNDS:
            raise JobError(
                "sketches-vanish",
                "The sketches do not stay",
                "selection",
                f"shards were damaged when their parts were read, {MOST_ROUNDS} times: check the artifact store",
            )
        spec = self.source.request.selection
        asked = self._config(candidates)
        config = settle(candidates.values, asked, should_stop=self.heartbeat.should_stop)
        sizes = [len(rows) for rows in partition(len(candidates.rows), spec.partitions or 1, spec.seed)]
        files, file, row = store.places()
        at = np.searchsorted(reading.corpus.rows, candidates.rows)
        kept = KeptCandidates(files, file[at], row[at], candidates.factors)
        write_candidates(self.context.artifacts, candidates_name(self.heartbeat.lease.id), kept)
        plan = self.plan.model_copy(
            update={
                **self._of_the_data(reading, store),
                "parted_at": self.plan.parted_at or self._now(),
                "splits": splits,
                "computed": self.computed,
                "behind": None,
                "candidates": len(candidates.rows),
                "parts": len(sizes),
                "picks": config.budget,
                "alpha": config.alpha,
            }
        )
        budgets = {number: min(config.budget or size, size) for number, size in enumerate(sizes)}
        self.heartbeat.stop()
        with self.context.sessions() as session:
            waiting = parking.park_job(session, self.heartbeat.lease, parking.PARTS, budgets, plan)
        self.context.queue.put_or_leave(waiting)
        if not waiting:
            raise Stopped

    def _of_the_data(self, reading: Reading, store: ShardStore) -> dict[str, Any]:
        """The fields of the plan that describe the job's data."""
        return {
            "fingerprint": reading.snapshot.fingerprint,
            "corpus": reading.corpus.digest,
            "model": reading.model.revision,
            "adapter": self.source.gradients.adapter,
            "sketches": store.key,
            "seconds": self.seconds,
        }

    def _now(self) -> float:
        """Seconds since 1970 on Postgres's clock, which all workers share."""
        with self.context.sessions() as session:
            return clock.now(session)

    def _load(self, reading: Reading, store: ShardStore, missing: list[int]) -> Candidates:
        """The sketches of all rows that may be picked; those of some shards are not there."""
        stored = store.load(
            scratch=self.context.settings.cache_path, without=missing, should_stop=self.heartbeat.should_stop
        )
        if stored.finite.any() and not any_information(stored.values):
            raise no_information(len(stored.values))
        wanted = self.source.request
        return candidates_of(stored, reading.corpus, wanted.selection, wanted.dataset.max_rejected_fraction)

    def _select(self, candidates: Candidates) -> tuple[dict[str, Selection], dict[str, list[Selection]]]:
        """Run the requested method, then the baselines with as many picks; results by label, repeated runs apart."""
        spec = self.source.request.selection
        config = self._config(candidates)
        main = self._merge(candidates, config) if self.parts else self._select_one(candidates, config)
        if not len(main.indices):
            raise no_information(len(candidates.rows))
        chosen: dict[str, Selection] = {MAIN: main}
        repeats: dict[str, list[Selection]] = {}
        for method in spec.baselines:
            baseline = config.baseline(method, budget=len(main.indices))
            chosen[method] = self._select_one(candidates, baseline)
            further = range(1, spec.baseline_repeats if method in RANDOM_METHODS else 1)
            repeats[method] = [
                self._select_one(candidates, replace(baseline, seed=baseline.seed + number)) for number in further
            ]
        return chosen, repeats

    def _config(self, candidates: Candidates) -> SelectionConfig:
        spec = self.source.request.selection
        return selection_config(
            spec,
            budget=picks_among(candidates, spec.budget),
            device=str(self.context.device),
            alpha=self.plan.alpha if self.parts else None,
        )

    def _should_stop(self) -> bool:
        """Whether the selection is to end early; others' work comes in between here."""
        if self.giving_way is None:
            self.giving_way = GivingWay(self.context, self.turn)
        self.giving_way.look()
        return self.heartbeat.should_stop()

    def _merge(self, candidates: Candidates, config: SelectionConfig) -> Selection:
        """Merge the picks of all parts."""
        picks = [
            PartPicks(np.array(part.picks, dtype=np.int64), np.array(part.gains, dtype=np.float64))
            for part in self.parts
        ]
        return merge(
            candidates.values,
            picks,
            config,
            on_progress=self._selecting(config.budget or len(candidates.values)),
            should_stop=self._should_stop,
        )

    def _select_one(self, candidates: Candidates, config: SelectionConfig) -> Selection:
        return select(
            candidates.values,
            config,
            norms=candidates.norms,
            on_progress=self._selecting(config.budget or len(candidates.values)),
            should_stop=self._should_stop,
        )

    def _selecting(self, budget: int) -> Callable[[Progress], None]:
        """Tell the progress of a selection: rows while it scans and certifies, picks while it picks."""
        stage: str | None = "picking"
        meter = self.heartbeat.enter(Stage.SELECTING, budget, "picks")

        def tell(progress: Progress) -> None:
            nonlocal stage, meter
            if progress.stage != stage:
                stage = progress.stage
                meter = self.heartbeat.enter(Stage.SELECTING, progress.total, progress.unit)
            meter.at(progress.done, progress.total)

        return tell

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        began = time.monotonic()
        with tracing.span(f"stage {stage}"):
            yield
        self.seconds.setdefault(stage, round(time.monotonic() - began, 3))


def any_information(values: NDArray[np.float32]) -> bool:
    """Whether any sketch is not zero, (m, p); looks no further than it must, as the matrix may be a map of a file."""
    return any(bool(values[start : start + 1024].any()) for start in range(0, len(values), 1024))


def no_information(rows: int) -> JobError:
    """All gradients are zero: an empty or arbitrary selection must not look like a result."""
    return JobError(
        "no-information",
        "The gradients say nothing",
        "gradients",
        f"all {rows} gradients are zero, so no row is better than another: check the model's weights, "
        "gradients.target and gradients.layers",
    )
