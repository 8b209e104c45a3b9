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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from app.core.contracts.job_plan import JobPlan, LimitReached
from app.core.contracts.job_request import ORDERED_METHODS
from app.core.contracts.job_result import Limited
from app.core.db import clock
from app.core.db.selections import MAIN
from app.core.db.tables import Job, Stage
from app.core.lifecycle import measurements, parking, proofs, quotas, sketch_use
from app.core.lifecycle.measurements import Took
from app.core.lifecycle.turns import Turn
from app.core.storage import StorageFailed, candidates_name, rows_prefix
from app.core.telemetry import tracing
from workers.data.ngrams import rows_within
from workers.data.rejection import enforce_limit
from workers.data.sources import source_column
from workers.data.stopping import Stopped
from workers.gradients.less import Plan
from workers.gradients.shards import ShardDamaged
from workers.models.architecture import check_length
from workers.runtime.context import current_context
from workers.runtime.failures import JobError, ProblemError
from workers.runtime.giving_way import GivingWay
from workers.runtime.task import run_leased
from workers.selection import ConstraintError, PartPicks, merge, partition, select, settle
from workers.stages import measuring
from workers.stages.candidates import candidates_of, picks_among, picks_of
from workers.stages.features import needed
from workers.stages.limits import FIELD, check_possible, held_against, read_evaluation, read_membership
from workers.stages.methods import Methods, RowFeatures, draws, target_rows
from workers.stages.objective import PartsInput, objective_of, write_parts_input
from workers.stages.part import climbing, selection_config
from workers.stages.publishing import Beside, Published, publish
from workers.stages.purposes import POOL, TARGET, directions_of, purpose_source, purposes_of, read_purpose
from workers.stages.reading import dataset_snapshot, key_for, read, sketches_of, source_beside, source_of
from workers.stages.sensitivity import Chosen, Reselecting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from app.core.contracts.job_request import Method
    from workers.data.ngrams import NGrams
    from workers.gradients.shards import ShardStore, StoredSketches
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat, Meter
    from workers.selection import Constraints, Progress, Selection, SelectionConfig
    from workers.stages.candidates import Candidates
    from workers.stages.limits import Membership
    from workers.stages.objective import Objective
    from workers.stages.reading import Reading, Source

logger = logging.getLogger(__name__)

KEPT = ("tokens", "limited")
"""Fields of the plan that a job has from before and needs to the end."""

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


@dataclass(frozen=True, slots=True)
class _Sketched:
    """A dataset of the job with the store of its sketches.

    Attributes:
        role: The job's own dataset is the pool; others are beside it.
        reading: Its rows.
        store: Its sketches, as far as they are there.
    """

    role: str
    reading: Reading
    store: ShardStore


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
            done = parking.samples_done(session, heartbeat.lease.id)
        role = self.plan.role
        self.computed = self.plan.computed + (done if role == POOL else 0)
        self.computed_beside = dict(self.plan.computed_beside)
        if role != POOL:
            self.computed_beside[role] = self.computed_beside.get(role, 0) + done
        self.turn = Turn(job.project_id, job.priority)
        self.seconds: dict[str, float] = dict(self.plan.seconds)
        self.read_anew = False
        self.giving_way: GivingWay | None = None
        self.own_fingerprint: str | None = self.plan.fingerprint
        self.evaluation: tuple[NGrams, str] | None = None
        self.unscored: list[int] | None = None
        self.pool: str | None = None

    def run(self) -> None:
        """Park the job or finish it; an exception ends it in another way."""
        failures = [self.failure, *(part.error for part in self.parts)]
        damaged = any(failure is not None and failure["type"] == parking.DAMAGED for failure in failures)
        for failure in failures:
            if failure is not None and not damaged:
                raise ProblemError(failure)
        first = Stage.READING not in self.seconds
        with self._timed(Stage.READING):
            readings = self._read()
            membership = self._membership(readings[POOL])
        if first:
            self._note_reading(readings[POOL])
        sketched = self._sketched(readings)
        self.pool = sketched[0].store.dataset
        self.unscored = self._unscored(sketched, verify=damaged)
        if self.unscored is None:
            return
        sketched[0].store.mark_used()
        scored = self._scored(sketched[0].store, self.unscored)
        if self.plan.parked_at is not None and self.plan.parted_at is None:
            self.seconds[Stage.GRADIENTS] = round(self._now() - self.plan.parked_at, 3)
        with self._timed(Stage.SELECTING):
            loaded = self._loaded(sketched, self.unscored)
            if loaded is None:
                return
            candidates = self._candidates(readings[POOL], loaded[POOL], membership)
            objective = self._objective(sketched, candidates, loaded, membership)
            if self.source.request.selection.partitions is not None and (damaged or not self.parts):
                self._split(sketched[0], candidates, objective)
                return
            try:
                methods = self._methods(sketched, candidates, objective, loaded)
                chosen, figures = self._select(candidates, objective, methods), methods.figures
            except ShardDamaged as error:
                self._park_damaged(sketched, error)
                return
            if self.plan.parted_at is not None:
                self.seconds[Stage.SELECTING] = round(self._now() - self.plan.parted_at, 3)
        reading, store = readings[POOL], sketched[0].store
        published = Published(
            reading=reading,
            candidates=candidates,
            objective=objective,
            chosen=chosen,
            figures=figures,
            selection=self.source.request.selection,
            source_column=source_column(
                reading.snapshot, self.context.settings, self.source.request.dataset.source_column
            ),
            sketches=store.key,
            scored=store.scored(),
            computed=self.computed,
            limited=self._limited(store, scored),
            beside={
                one.role: Beside(
                    fingerprint=one.reading.snapshot.fingerprint,
                    sketches=one.store.key,
                    samples=len(one.reading.corpus),
                    computed=self.computed_beside.get(one.role, 0),
                )
                for one in sketched
                if one.role != POOL
            },
            decontamination=membership.evaluation,
            seconds=self.seconds,
        )
        publish(self.context, self.heartbeat, published)

    def _read(self) -> dict[str, Reading]:
        """The job's own dataset, and those beside it, by role."""
        beside = {
            role: read_purpose(self.context, role, purpose, self._source_of(role), self.heartbeat.should_stop)
            for role, purpose in purposes_of(self.source.request.selection).items()
        }
        self.evaluation = self._read_evaluation()
        own = self._read_own()
        self.own_fingerprint = own.snapshot.fingerprint
        self._count(own.corpus.rows_total + sum(one.corpus.rows_total for one in beside.values()))
        self.plan = self.plan.model_copy(
            update={"beside": {role: one.snapshot.fingerprint for role, one in beside.items()}} if beside else {}
        )
        return {POOL: own, **beside}

    def _source_of(self, role: str) -> Source:
        fingerprint = self.plan.beside.get(role)
        return purpose_source(self.context, self.heartbeat.lease.id, self.source, role, fingerprint)

    def _membership(self, reading: Reading) -> Membership:
        """What the constraints are about; refuses here, before gradients are computed, what no selection can meet."""
        wanted, corpus = self.source.request, reading.corpus
        spec = wanted.selection
        membership = read_membership(
            reading.snapshot, corpus, spec, wanted.dataset, self.context.settings, self.heartbeat.should_stop
        )
        membership = self._held_against(membership, reading)
        budget = None if spec.budget.tokens is not None else picks_of(spec.budget, len(corpus))
        check_possible(spec, membership, corpus, budget)
        return membership

    def _read_evaluation(self) -> tuple[NGrams, str] | None:
        """The runs of words of the set that rows are held against, and its fingerprint; None without one."""
        limits = self.source.request.selection.constraints
        asked = None if limits is None else limits.decontaminate
        if asked is None:
            return None
        field, stop = f"{FIELD}.decontaminate.dataset", self.heartbeat.should_stop
        source = source_beside(self.context, self.heartbeat.lease.id, self.source, asked.dataset, field, None)
        found = dataset_snapshot(self.context, source.uri, source.fingerprint, recalled=False, should_stop=stop)
        return read_evaluation(found, asked, self.context.settings, stop), found.fingerprint

    def _held_against(self, membership: Membership, reading: Reading) -> Membership:
        """With the rows that share text with the evaluation set."""
        if self.evaluation is None:
            return membership
        ngrams, fingerprint = self.evaluation
        columns, settings = list(reading.corpus.shape.columns.values()), self.context.settings
        overlapping = rows_within(reading.snapshot, columns, ngrams, settings, self.heartbeat.should_stop)
        told = {"rows": ngrams.rows, "short": ngrams.short, "runs": len(ngrams.runs), "fingerprint": fingerprint}
        return held_against(membership, overlapping, told)

    def _read_own(self) -> Reading:
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
        wanted = self.source.request
        enforce_limit(
            reading.corpus.rejected,
            reading.corpus.rows_total,
            wanted.dataset.max_rejected_fraction,
            said=reading.corpus.said,
            needed=reading.corpus.needed,
        )
        source_column(reading.snapshot, self.context.settings, wanted.dataset.source_column)
        if wanted.selection.budget.tokens is None:
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

    def _sketched(self, readings: Mapping[str, Reading]) -> list[_Sketched]:
        """All datasets with their sketches under one content key, the job's own first: a preparation comes of it."""
        own = readings[POOL]
        key = key_for(self.source, own.model.revision, own.corpus)
        self._use(key)
        return [
            _Sketched(role, one, sketches_of(self.context, self.source.request, key, one.corpus))
            for role, one in readings.items()
        ]

    def _use(self, key: str) -> None:
        """Protect the sketches from deletion until the job ends, before the job looks for them."""
        if key == self.plan.sketches:
            return
        with self.context.sessions() as session:
            signals = sketch_use.use(session, self.heartbeat.lease, key, self.plan, self.context.settings.lease_s)
        if not signals.held:
            raise Stopped

    def _unscored(self, sketched: Sequence[_Sketched], *, verify: bool) -> list[int] | None:
        """Shards of the own dataset that a limit kept from being made; None where the job is parked for others."""
        unscored: list[int] = []
        for one in sketched:
            missing = one.store.missing(verify=verify)
            lacking = self._lacking(sketched, one, verify=verify)
            if missing and (one.role != POOL or self.plan.limited is None):
                self._park(sketched, one, sorted({*missing, *lacking}), verify=verify)
                return None
            unscored += missing
            if not {*lacking} <= {*missing}:
                self._park(sketched, one, sorted({*lacking} - {*missing}), verify=verify)
                return None
        return unscored

    def _lacking(self, sketched: Sequence[_Sketched], one: _Sketched, *, verify: bool) -> list[int]:
        """The shards of a dataset without something that the methods need besides sketches."""
        wanted = needed(self.source.request.selection, one.role, sketched[0].store.dataset)
        return one.store.missing_features(wanted, verify=verify)

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

    def _loaded(self, sketched: Sequence[_Sketched], unscored: list[int]) -> dict[str, StoredSketches] | None:
        """All sketches by role; None where a shard is damaged, and the job is parked until that is made again."""
        found = {}
        for one in sketched:
            try:
                found[one.role] = one.store.load(
                    scratch=self.context.settings.cache_path,
                    without=unscored if one.role == POOL else (),
                    should_stop=self.heartbeat.should_stop,
                )
            except ShardDamaged as error:
                logger.warning("job %s: %s", self.heartbeat.lease.id, error)
                self._park(sketched, one, one.store.missing(verify=True) or [error.shard], verify=True)
                return None
        return found

    def _park_damaged(self, sketched: Sequence[_Sketched], error: ShardDamaged) -> None:
        """Let go of the job until what a method needs is whole again."""
        logger.warning("job %s: %s", self.heartbeat.lease.id, error)
        if self._unscored(sketched, verify=True) is not None:
            self._park(sketched, sketched[0], [error.shard], verify=True)

    def _park(self, sketched: Sequence[_Sketched], one: _Sketched, missing: list[int], *, verify: bool) -> None:
        """Let go of the job until what is missing is there: another job computes it already, or its own shards will.

        Each dataset has turns of its own.
        """
        rounds = self.plan.rounds + 1
        if rounds > MOST_ROUNDS * len(sketched):
            raise JobError(
                "sketches-vanish",
                "The sketches do not stay",
                "gradients",
                f"{len(missing)} shards were missing or damaged after {rounds - 1} rounds: check the artifact store",
            )
        store = one.store
        sizes = {shard: store.size(shard) or len(store.rows(shard)) for shard in missing}
        sketchless = {*store.missing(verify=verify)}.intersection(missing)
        allowed, tokens, limited = self._within_limits(one, missing) if sketchless else (missing, None, None)
        plan = JobPlan(
            **self._of_the_data(one),
            shard_rows=store.shard_rows,
            parked_at=self.plan.parked_at or self._now(),
            rounds=self.plan.rounds,
            computed=self.computed,
            **({"computed_beside": self.computed_beside} if self.computed_beside else {}),
            **{name: getattr(self.plan, name) for name in KEPT if name in self.plan.model_fields_set},
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

    def _within_limits(self, one: _Sketched, missing: list[int]) -> tuple[list[int], int | None, LimitReached | None]:
        """The shards that the limit of tokens lets this job make, the tokens that it has then, and whether that is all.

        At least one is made, and the last of them may go beyond the limit. Which ones are drawn at random, so that they
        speak of all rows.
        """
        limits, store = self.source.request.limits, one.store
        if limits is None or limits.gradient_tokens is None or one.role != POOL:
            return missing, None, None
        allowed: list[int] = []
        tokens = self.plan.tokens
        for place in np.random.default_rng(self.source.gradients.seed).permutation(len(missing)).tolist():
            if tokens >= limits.gradient_tokens and allowed:
                break
            tokens += int(one.reading.corpus.lengths[store.lacking(missing[place])].sum())
            allowed.append(missing[place])
        reached = LimitReached(limit="gradient_tokens", value=limits.gradient_tokens, used=tokens)
        return sorted(allowed), tokens, reached if len(allowed) < len(missing) else None

    def _split(self, own: _Sketched, candidates: Candidates, objective: Objective) -> None:
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
        asked = self._config(candidates, objective)
        limits = objective.limits.before(asked.budget)
        config = settle(objective.values, asked, limits, should_stop=self.heartbeat.should_stop)
        sizes = [len(rows) for rows in partition(len(candidates.rows), spec.partitions or 1, spec.seed)]
        files, file, row = own.store.places()
        at = np.searchsorted(own.reading.corpus.rows, candidates.rows)
        write_parts_input(
            self.context.artifacts,
            candidates_name(self.heartbeat.lease.id),
            PartsInput(files, file[at], row[at], candidates.factors, objective.bearings.metric, limits),
        )
        plan = self.plan.model_copy(
            update={
                **self._of_the_data(own),
                "parted_at": self.plan.parted_at or self._now(),
                "splits": splits,
                "computed": self.computed,
                "behind": None,
                **({"computed_beside": self.computed_beside} if self.computed_beside else {}),
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

    def _of_the_data(self, one: _Sketched) -> dict[str, Any]:
        """The fields of the plan that describe the job's data, and the dataset whose sketches are looked for."""
        return {
            "fingerprint": self.own_fingerprint,
            "corpus": one.reading.corpus.digest,
            "model": one.reading.model.revision,
            "adapter": self.source.gradients.adapter,
            "sketches": one.store.key,
            "seconds": self.seconds,
            "role": one.role,
            "pool": self.pool,
            **({"beside": self.plan.beside} if self.plan.beside else {}),
        }

    def _now(self) -> float:
        """Seconds since 1970 on Postgres's clock, which all workers share."""
        with self.context.sessions() as session:
            return clock.now(session)

    def _candidates(self, reading: Reading, stored: StoredSketches, membership: Membership) -> Candidates:
        """The sketches of all rows that may be picked."""
        if stored.finite.any() and not any_information(stored.values):
            raise no_information(len(stored.values))
        wanted = self.source.request
        return candidates_of(stored, reading.corpus, wanted.selection, membership, wanted.dataset.max_rejected_fraction)

    def _objective(
        self,
        sketched: Sequence[_Sketched],
        candidates: Candidates,
        loaded: Mapping[str, StoredSketches],
        membership: Membership,
    ) -> Objective:
        spec, corpus = self.source.request.selection, sketched[0].reading.corpus
        purposes = purposes_of(spec)
        beside = {
            one.role: directions_of(
                self.context,
                one.role,
                purposes[one.role],
                one.reading,
                loaded[one.role],
                self.heartbeat.should_stop,
            )
            for one in sketched
            if one.role != POOL
        }
        tokens = corpus.lengths[np.searchsorted(corpus.rows, candidates.rows)]
        return objective_of(
            spec, candidates.values, candidates.rows, membership, tokens, beside, self.context.settings.cache_path
        )

    def _methods(
        self,
        sketched: Sequence[_Sketched],
        candidates: Candidates,
        objective: Objective,
        loaded: Mapping[str, StoredSketches],
    ) -> Methods:
        """What runs the methods that order rows by other things than gains and lengths of their sketches."""
        spec, stop, own = self.source.request.selection, self._should_stop, sketched[0]
        figures, finite = candidates.figures, loaded[POOL].finite
        response_tokens = own.reading.corpus.response_tokens()[finite]
        target = None
        for one in sketched:
            if one.role == TARGET:
                directions = objective.bearings.directions[TARGET]
                target = target_rows(spec, directions, loaded[TARGET], one.store, own.store.dataset, stop)
        return Methods(
            spec=spec,
            places=candidates.places,
            sketches=candidates.values,
            values=objective.values,
            loss=figures.loss[candidates.places],
            ifd=figures.ifd[candidates.places],
            response_tokens=response_tokens[candidates.places],
            rows=RowFeatures(own.store, finite, stop, frozenset(self.unscored or ())),
            rates=Plan.of(len(own.reading.corpus)).of_epochs,
            target=target,
            known={"response_tokens": response_tokens.astype(np.float64)},
            should_stop=stop,
        )

    def _select(self, candidates: Candidates, objective: Objective, methods: Methods) -> Chosen:
        """Run the requested method, then the baselines with as many picks, and all that is asked about them."""
        spec = self.source.request.selection
        config = self._config(candidates, objective)

        def run(rows: int | None, limits: Constraints | None) -> Selection:
            asked = replace(config, budget=rows)
            if self.parts:
                return self._merge(objective, asked, limits)
            return self._select_one(spec.method, methods, candidates, objective, asked, limits)

        main, limits = objective.limits.apply(config.budget, run)
        if not len(main.indices):
            raise (
                nothing_picked(spec.method) if spec.method in ORDERED_METHODS else no_information(len(candidates.rows))
            )
        chosen = Chosen({MAIN: main}, limits)
        for method in spec.baselines:
            baseline = config.baseline(climbing(method), budget=len(main.indices))
            try:
                runs = [
                    self._select_one(
                        method, methods, candidates, objective, replace(baseline, seed=baseline.seed + number), limits
                    )
                    for number in range(spec.baseline_repeats if draws(spec, method) else 1)
                ]
            except ConstraintError as error:
                chosen.left_out[method] = str(error)
                continue
            if not len(runs[0].indices):
                chosen.left_out[method] = str(nothing_picked(method))
                continue
            chosen.selections[method], chosen.repeats[method] = runs[0], runs[1:]
        asking = Reselecting(
            spec,
            candidates,
            objective,
            main,
            config,
            limits,
            self.context.settings.cache_path,
            {"on_progress": self._selecting(len(main.indices)), "should_stop": self._should_stop},
        )
        chosen.cost, chosen.sweep, chosen.stability = asking.cost(), asking.sweep(), asking.stability()
        return chosen

    def _config(self, candidates: Candidates, objective: Objective) -> SelectionConfig:
        spec, limits = self.source.request.selection, objective.limits.constraints
        return selection_config(
            spec,
            budget=picks_among(candidates, spec.budget, 0 if limits is None else len(limits.exclude)),
            device=str(self.context.device),
            alpha=self.plan.alpha if self.parts else None,
        )

    def _should_stop(self) -> bool:
        """Whether the selection is to end early; others' work comes in between here."""
        if self.giving_way is None:
            self.giving_way = GivingWay(self.context, self.turn)
        self.giving_way.look()
        return self.heartbeat.should_stop()

    def _merge(self, objective: Objective, config: SelectionConfig, limits: Constraints | None) -> Selection:
        """Merge the picks of all parts."""
        picks = [
            PartPicks(np.array(part.picks, dtype=np.int64), np.array(part.gains, dtype=np.float64))
            for part in self.parts
        ]
        return merge(
            objective.values,
            picks,
            config,
            limits,
            on_progress=self._selecting(config.budget or len(objective.values)),
            should_stop=self._should_stop,
        )

    def _select_one(
        self,
        method: Method,
        methods: Methods,
        candidates: Candidates,
        objective: Objective,
        config: SelectionConfig,
        limits: Constraints | None,
    ) -> Selection:
        on_progress = self._selecting(config.budget or len(objective.values))
        if method in ORDERED_METHODS:
            return methods.select(method, config, limits, on_progress)
        return select(
            objective.values,
            config,
            limits,
            norms=candidates.norms,
            on_progress=on_progress,
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


def nothing_picked(method: Method) -> JobError:
    """No row has what a method ranks by."""
    return JobError(
        "nothing-picked",
        "The method picks nothing",
        "selection.method",
        f"no row that may be picked has what {method} ranks by"
        f"{': prompts that help, ifd 1 or less' if method == 'ifd' else ''}: use another method, or widen the filters",
    )


def no_information(rows: int) -> JobError:
    """All gradients are zero: an empty or arbitrary selection must not look like a result."""
    return JobError(
        "no-information",
        "The gradients say nothing",
        "gradients",
        f"all {rows} gradients are zero, so no row is better than another: check the model's weights, "
        "gradients.target and gradients.layers",
    )
