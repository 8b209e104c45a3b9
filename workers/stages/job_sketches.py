"""The sketches that a job needs: which are there, which are missing or damaged, and parking the job until they are."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from app.core.contracts.job_plan import JobPlan, LimitReached
from app.core.contracts.job_result import Limited
from app.core.lifecycle import parking
from workers.gradients.shards import ShardDamaged
from workers.runtime.failures import JobError
from workers.stages.features import needed
from workers.stages.purposes import POOL
from workers.stages.reading import key_for, sketches_of
from workers.stages.schedule import outcome_of, store_of, windows_of
from workers.stages.window_limits import window_limits_of, write_window_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from app.core.contracts.schedule import ScheduleState, WindowLimits
    from app.core.contracts.selection_request import Budget
    from workers.gradients.shards import ShardStore, StoredSketches
    from workers.stages.job_reading import JobReading
    from workers.stages.leased_job import LeasedJob
    from workers.stages.reading import Reading

logger = logging.getLogger(__name__)

KEPT = ("tokens", "limited", "pieces")
"""Fields of the plan that a job has from before and needs to the end."""

MOST_ROUNDS = 3
"""Times that a job makes shards: more than one means that sketches vanished or were damaged while it waited."""


@dataclass(frozen=True, slots=True)
class Sketched:
    """A dataset of the job with the store of its sketches.

    Attributes:
        role: The job's own dataset is the pool; others are beside it.
        reading: Its rows.
        store: Its sketches, as far as they are there.
    """

    role: str
    reading: Reading
    store: ShardStore


@dataclass(frozen=True, slots=True, eq=False)
class JobSketches:
    """All datasets of a job with their sketches.

    Attributes:
        job: The job.
        plan: Of the job, with what its datasets were.
        own: The job's own dataset.
        beside: The datasets beside it.
        limits: What the picks of its schedule keep to; None without a schedule.
    """

    job: LeasedJob
    plan: JobPlan
    own: Sketched
    beside: tuple[Sketched, ...]
    limits: WindowLimits | None = None

    @property
    def datasets(self) -> tuple[Sketched, ...]:
        """All of them, the job's own first."""
        return (self.own, *self.beside)

    def unscored(self, *, verify: bool) -> list[int] | None:
        """Shards of the own dataset that a limit kept from being made; None where the job is parked for others.

        Args:
            verify: Read every shard to see whether it is whole.
        """
        unscored: list[int] = []
        for one in self.datasets:
            missing = one.store.missing(verify=verify) or self._windows_missing()
            lacking = self._lacking(one, verify=verify)
            if missing and (one.role != POOL or self.plan.limited is None):
                self._park(one, {*missing, *lacking}, verify=verify)
                return None
            unscored += missing
            if not {*lacking} <= {*missing}:
                self._park(one, {*lacking} - {*missing}, verify=verify)
                return None
        return unscored

    def windows(self) -> ScheduleState | None:
        """What the request's schedule came to; None without a schedule, and before its end."""
        if self.job.request.schedule is None:
            return None
        return outcome_of(self.job.context.artifacts, self.own.store.key)

    @property
    def computed(self) -> int:
        """Samples of the job's own dataset whose sketches were computed for this job; of a schedule all, or none."""
        computed = self.job.computed[POOL]
        return computed if self.job.request.schedule is None or not computed else self.own.store.samples

    def scored(self, unscored: list[int]) -> int:
        """How many samples have sketches, where a limit kept the others from getting theirs.

        Raises:
            JobError: The request has the job stop there, or there is nothing to select from, or fewer rows than are to
                be picked.
        """
        store = self.own.store
        scored = store.samples - int(store.left_out(unscored).sum())
        limits, limited = self.job.request.limits, self.plan.limited
        if unscored and limits is not None and limited is not None and (limits.on_limit == "stop" or not scored):
            raise JobError(
                "limit-reached",
                "The job has reached its limit",
                f"limits.{limited.limit}",
                f"is {limited.value:g}, and {limited.used:g} were used for {scored:,} of {store.samples:,} rows, whose "
                "gradients are kept: submit again with a larger limit to go on from there, or with limits.on_limit "
                "'select' to select from them",
            )
        if unscored and limited is not None:
            check_enough_scored(self.job.request.selection.budget, scored, store.samples, limited.limit)
        return scored

    def limited(self, scored: int) -> Limited | None:
        """What the result says of the limit, if it kept rows from being scored."""
        reached, samples = self.plan.limited, self.own.store.samples
        if reached is None or scored == samples:
            return None
        return Limited(**reached.model_dump(), rows_scored=scored, rows_not_scored=samples - scored)

    def load(self, unscored: list[int]) -> dict[str, StoredSketches] | None:
        """All sketches by role; None where a shard is damaged, and the job is parked until that is made again."""
        loaded = {}
        for one in self.datasets:
            try:
                loaded[one.role] = one.store.load(
                    scratch=self.job.context.settings.cache_path,
                    without=unscored if one.role == POOL else (),
                    should_stop=self.job.should_stop,
                )
            except ShardDamaged as error:
                logger.warning("job %s: %s", self.job.id, error)
                self._park(one, one.store.missing(verify=True) or [error.shard], verify=True)
                return None
        return loaded

    def park_damaged(self, error: ShardDamaged) -> None:
        """Let go of the job until what a method needs is whole again."""
        logger.warning("job %s: %s", self.job.id, error)
        if self.unscored(verify=True) is not None:
            self._park(self.own, [error.shard], verify=True)

    def planned(self, one: Sketched) -> dict[str, Any]:
        """The fields of the plan that describe the job's data, `one` the dataset whose sketches are looked for."""
        computed, beside = self.job.computed, {role: n for role, n in self.job.computed.items() if role != POOL}
        return {
            "fingerprint": self.own.reading.snapshot.fingerprint,
            "corpus": one.reading.corpus.digest,
            "model": one.reading.model.revision,
            "adapter": self.job.source.gradients.adapter,
            "sketches": one.store.key,
            "seconds": self.job.seconds,
            "role": one.role,
            "pool": self.own.store.dataset,
            "computed": computed[POOL],
            **({"computed_beside": beside} if beside else {}),
            **({"beside": self.plan.beside} if self.plan.beside else {}),
        }

    def _windows_missing(self) -> list[int]:
        """The one unit of work of a schedule that has not come to its end."""
        return [0] if self.job.request.schedule is not None and self.windows() is None else []

    def mark_used(self) -> None:
        """Note in the store what the job uses of its own dataset."""
        self.own.store.mark_used(self._needed(self.own))

    def _needed(self, one: Sketched) -> list[str]:
        """What the methods need of a dataset besides sketches."""
        return needed(self.job.request.selection, one.role, self.own.store.dataset)

    def _lacking(self, one: Sketched, *, verify: bool) -> list[int]:
        """The shards of a dataset without something that the methods need besides sketches."""
        return one.store.missing_features(self._needed(one), verify=verify)

    def _park(self, one: Sketched, missing: Iterable[int], *, verify: bool) -> None:
        """Let go of the job until what is missing is there: another job computes it already, or its own shards will.

        Each dataset has turns of its own.
        """
        missing, rounds = sorted(missing), self.plan.rounds + 1
        if rounds > MOST_ROUNDS * len(self.datasets):
            raise JobError(
                "sketches-vanish",
                "The sketches do not stay",
                "gradients",
                f"{len(missing)} shards were missing or damaged after {rounds - 1} rounds: check the artifact store",
            )
        store, units, schedule = one.store, parking.SHARDS, self.job.request.schedule
        sizes = {shard: store.size(shard) or len(store.rows(shard)) for shard in missing}
        if schedule is not None:
            units, missing, sizes = parking.WINDOWS, [0], {0: len(windows_of(schedule, store.samples))}
        if self.limits is not None and self.job.request.selection.constraints is not None:
            write_window_limits(self.job.context.artifacts, self.job.id, self.limits)
        sketchless = {*store.missing(verify=verify)}.intersection(missing)
        allowed, tokens, limited = self._within_limits(one, missing) if sketchless else (missing, None, None)
        plan = JobPlan(
            **self.planned(one),
            work=f"{store.key}/{one.reading.corpus.digest}",
            shard_rows=store.shard_rows,
            parked_at=self.plan.parked_at or self.job.now(),
            rounds=self.plan.rounds,
            **{name: getattr(self.plan, name) for name in KEPT if name in self.plan.model_fields_set},
        )
        made = plan.model_copy(
            update={"rounds": rounds}
            | ({} if tokens is None else {"tokens": tokens})
            | ({} if limited is None else {"limited": limited})
        )
        self.job.park(units, sizes, plan, {shard: sizes[shard] for shard in allowed}, made)

    def _within_limits(self, one: Sketched, missing: list[int]) -> tuple[list[int], int | None, LimitReached | None]:
        """The shards that the limit of tokens lets this job make, the tokens that it has then, and whether that is all.

        `drawn_within` says which.
        """
        limits, store = self.job.request.limits, one.store
        if limits is None or limits.gradient_tokens is None or one.role != POOL:
            return missing, None, None
        drawn, tokens = drawn_within(
            limits.gradient_tokens,
            len(missing),
            lambda place: int(one.reading.corpus.lengths[store.lacking(missing[place])].sum()),
            seed=self.job.source.gradients.seed,
            used=self.plan.tokens,
        )
        reached = LimitReached(limit="gradient_tokens", value=limits.gradient_tokens, used=tokens)
        return [missing[place] for place in drawn], tokens, reached if len(drawn) < len(missing) else None


def check_enough_scored(budget: Budget, scored: int, samples: int, limit: str) -> None:
    """Refuse a budget of more rows than a limit let be scored.

    Args:
        budget: As it was asked for.
        scored: Rows that have sketches.
        samples: All rows.
        limit: Name of the limit.

    Raises:
        JobError: It is a count, and fewer rows are scored.
    """
    if budget.count is not None and budget.count > scored:
        raise JobError(
            "budget-too-large",
            "The budget is larger than what is scored",
            "selection.budget.count",
            f"is {budget.count:,}, and limits.{limit} lets {scored:,} of {samples:,} rows be scored: ask for fewer, "
            "for a fraction, or raise the limit",
        )


def drawn_within(
    limit: int, count: int, tokens_of: Callable[[int], int], *, seed: int, used: int = 0
) -> tuple[list[int], int]:
    """The shards that a limit of tokens lets a job make, drawn at random, so that they speak of all rows.

    Args:
        limit: Tokens. At least one shard is made, and the last may go beyond the limit.
        count: How many shards are missing.
        tokens_of: The tokens of one of them, by its place.
        seed: Of the draw.
        used: Tokens that were computed before.

    Returns:
        Their places, ascending, and the tokens that are then used.
    """
    drawn: list[int] = []
    for place in np.random.default_rng(seed).permutation(count).tolist():
        if used >= limit and drawn:
            break
        used += tokens_of(place)
        drawn.append(place)
    return sorted(drawn), used


def sketches_for(job: LeasedJob, reading: JobReading) -> JobSketches:
    """All datasets with their sketches under one content key, protected from deletion until the job ends.

    Raises:
        Stopped: The job was cancelled or lost meanwhile.
    """
    own, plan, schedule = reading.own, reading.planned(job.plan), job.request.schedule
    limits = scheduled = None
    if schedule is not None:
        limits = window_limits_of(job.request.selection, reading.membership, own.corpus)
        scheduled = store_of(job.context, job.source, schedule, own.model.revision, own.corpus, limits)
    key = scheduled.key if scheduled else key_for(job.source, own.model.revision, own.corpus)
    if key != plan.sketches:
        job.use_sketches(key, plan)
    if scheduled:
        return JobSketches(job, plan, Sketched(POOL, own, scheduled), (), limits)
    first, *beside = (
        Sketched(role, one, sketches_of(job.context, job.request, key, one.corpus))
        for role, one in reading.readings.items()
    )
    return JobSketches(job, plan, first, tuple(beside))
