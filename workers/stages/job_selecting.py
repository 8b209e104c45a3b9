"""What a job selects: from which rows, within which limits, by the method and the baselines that were asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.selection_request import ORDERED_METHODS
from app.core.db.selections import MAIN
from app.core.db.tables import Stage
from workers.gradients.less import Plan
from workers.runtime.failures import JobError
from workers.selection import ConstraintError, PartPicks, merge, select
from workers.stages.candidates import candidates_of, picks_among
from workers.stages.methods import Methods, RowFeatures, draws, target_rows
from workers.stages.objective import objective_of
from workers.stages.part import climbing, selection_config
from workers.stages.purposes import POOL, TARGET, directions_of, purposes_of
from workers.stages.schedule import selection_of
from workers.stages.sensitivity import Chosen, Reselecting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from app.core.contracts.schedule import ScheduleState
    from app.core.contracts.selection_request import Method
    from workers.gradients.shards import StoredSketches
    from workers.runtime.giving_way import GivingWay
    from workers.selection import Constraints, Progress, Selection, SelectionConfig
    from workers.stages.candidates import Candidates
    from workers.stages.job_reading import JobReading
    from workers.stages.job_sketches import JobSketches
    from workers.stages.leased_job import LeasedJob
    from workers.stages.objective import Objective


def candidates_for(job: LeasedJob, reading: JobReading, stored: StoredSketches) -> Candidates:
    """The sketches of all rows that may be picked; raises as `candidates_of`, or JobError if all are zero."""
    if stored.finite.any() and not any_information(stored.values):
        raise no_information(len(stored.values))
    wanted = job.request
    return candidates_of(
        stored, reading.own.corpus, wanted.selection, reading.membership, wanted.dataset.max_rejected_fraction
    )


def objective_for(
    job: LeasedJob,
    reading: JobReading,
    candidates: Candidates,
    loaded: Mapping[str, StoredSketches],
) -> Objective:
    """The question that the request puts to the candidates; raises as `directions_of` and `objective_of`."""
    spec, corpus, context = job.request.selection, reading.own.corpus, job.context
    beside = {
        role: directions_of(context, role, purpose, reading.readings[role], loaded[role], job.should_stop)
        for role, purpose in purposes_of(spec).items()
    }
    tokens = corpus.lengths[np.searchsorted(corpus.rows, candidates.rows)]
    return objective_of(
        spec,
        candidates.values,
        candidates.rows,
        reading.membership,
        tokens,
        beside,
        context.settings.cache_path,
    )


def config_for(job: LeasedJob, candidates: Candidates, objective: Objective) -> SelectionConfig:
    """The main selection as the selector takes it; raises as `picks_among`."""
    spec, limits = job.request.selection, objective.limits.constraints
    return selection_config(
        spec,
        budget=picks_among(candidates, spec.budget, 0 if limits is None else len(limits.exclude)),
        device=str(job.context.device),
        alpha=job.plan.alpha if job.parts else None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class JobSelecting:
    """The selections of a job.

    Attributes:
        job: The job.
        candidates: The rows that may be picked.
        objective: What is selected from.
        giving_way: Lets others' work come in between.
    """

    job: LeasedJob
    candidates: Candidates
    objective: Objective
    giving_way: GivingWay

    def should_stop(self) -> bool:
        """Whether the selection is to end early; others' work comes in between here."""
        self.giving_way.look()
        return self.job.should_stop()

    def methods(self, sketches: JobSketches, loaded: Mapping[str, StoredSketches], unscored: list[int]) -> Methods:
        """What runs the methods that order rows by other things than gains and lengths of their sketches.

        Args:
            sketches: The datasets.
            loaded: Their sketches by role.
            unscored: Shards of the own dataset that a limit kept from being made.
        """
        spec, own, candidates = self.job.request.selection, sketches.own, self.candidates
        figures, finite = candidates.figures, loaded[POOL].finite
        response_tokens = own.reading.corpus.response_tokens()[finite]
        target = None
        for one in sketches.beside:
            if one.role == TARGET:
                directions = self.objective.bearings.directions[TARGET]
                target = target_rows(spec, directions, loaded[TARGET], one.store, own.store.dataset, self.should_stop)
        return Methods(
            spec=spec,
            places=candidates.places,
            sketches=candidates.values,
            values=self.objective.values,
            loss=figures.loss[candidates.places],
            ifd=figures.ifd[candidates.places],
            response_tokens=response_tokens[candidates.places],
            rows=RowFeatures(own.store, finite, self.should_stop, frozenset(unscored)),
            rates=Plan.of(len(own.reading.corpus)).of_epochs,
            target=target,
            known={"response_tokens": response_tokens.astype(np.float64)},
            should_stop=self.should_stop,
        )

    def chosen(self, methods: Methods) -> Chosen:
        """Run the requested method, then the baselines with as many picks, and all that is asked about them.

        Raises:
            JobError: Nothing can be picked.
            ConstraintError: The constraints can't be met.
            ShardDamaged: What a method needs besides sketches is damaged.
            SelectionCancelledError: The job was cancelled or lost meanwhile.
        """
        spec = self.job.request.selection
        config = config_for(self.job, self.candidates, self.objective)

        def run(rows: int | None, limits: Constraints | None) -> Selection:
            asked = replace(config, budget=rows)
            return self._merge(asked, limits) if self.job.parts else self._select(spec.method, methods, asked, limits)

        main, limits = self.objective.limits.apply(config.budget, run)
        if not len(main.indices):
            raise (
                nothing_picked(spec.method)
                if spec.method in ORDERED_METHODS
                else no_information(len(self.candidates.rows))
            )
        chosen = Chosen({MAIN: main}, limits)
        for method in spec.baselines:
            self._add_baseline(chosen, method, methods, config)
        asking = Reselecting(
            spec,
            self.candidates,
            self.objective,
            main,
            config,
            limits,
            self.job.context.settings.cache_path,
            {"on_progress": self._tell(len(main.indices)), "should_stop": self.should_stop},
        )
        chosen.cost, chosen.sweep, chosen.stability = asking.cost(), asking.sweep(), asking.stability()
        return chosen

    def _add_baseline(self, chosen: Chosen, method: Method, methods: Methods, config: SelectionConfig) -> None:
        """Run a baseline with as many picks as the main selection has, or note why it is left out."""
        spec = self.job.request.selection
        baseline = config.baseline(climbing(method), budget=len(chosen.selections[MAIN].indices))
        repeats = spec.baseline_repeats if draws(spec, method) else 1
        try:
            runs = [
                self._select(method, methods, replace(baseline, seed=baseline.seed + number), chosen.limits)
                for number in range(repeats)
            ]
        except ConstraintError as error:
            chosen.left_out[method] = str(error)
            return
        if not len(runs[0].indices):
            chosen.left_out[method] = str(nothing_picked(method))
            return
        chosen.selections[method], chosen.repeats[method] = runs[0], runs[1:]

    def as_scheduled(self, windows: ScheduleState) -> Chosen:
        """What a schedule has picked."""
        picks = sum(len(window.picks) for window in windows.windows)
        if not picks:
            raise no_information(len(self.candidates.rows))
        config = config_for(self.job, self.candidates, self.objective)
        limits = self.objective.limits.before(picks)
        main = selection_of(windows, self.candidates, config, limits, self._tell(picks), self.should_stop)
        return Chosen({MAIN: main}, limits)

    def _merge(self, config: SelectionConfig, limits: Constraints | None) -> Selection:
        """Merge the picks of all parts."""
        picks = [
            PartPicks(np.array(part.picks, dtype=np.int64), np.array(part.gains, dtype=np.float64))
            for part in self.job.parts
        ]
        values = self.objective.values
        return merge(
            values,
            picks,
            config,
            limits,
            on_progress=self._tell(config.budget or len(values)),
            should_stop=self.should_stop,
        )

    def _select(
        self, method: Method, methods: Methods, config: SelectionConfig, limits: Constraints | None
    ) -> Selection:
        values = self.objective.values
        on_progress = self._tell(config.budget or len(values))
        if method in ORDERED_METHODS:
            return methods.select(method, config, limits, on_progress)
        return select(
            values,
            config,
            limits,
            norms=self.candidates.norms,
            on_progress=on_progress,
            should_stop=self.should_stop,
        )

    def _tell(self, budget: int) -> Callable[[Progress], None]:
        """Tell the progress of a selection: rows while it scans and certifies, picks while it picks."""
        stage: str | None = "picking"
        meter = self.job.heartbeat.enter(Stage.SELECTING, budget, "picks")

        def tell(progress: Progress) -> None:
            nonlocal stage, meter
            if progress.stage != stage:
                stage = progress.stage
                meter = self.job.heartbeat.enter(Stage.SELECTING, progress.total, progress.unit)
            meter.at(progress.done, progress.total)

        return tell


def any_information(values: NDArray[np.float32]) -> bool:
    """Whether any sketch is not zero, (m, p); looks no further than it must, as the matrix may be a map of a file."""
    return any(bool(values[start : start + 1024].any()) for start in range(0, len(values), 1024))


def nothing_picked(method: Method) -> JobError:
    """No row has what a method ranks by."""
    return JobError(
        "nothing-picked",
        "The method picks nothing",
        "selection.method",
        f"no row that budget and constraints let in has what {method} ranks by"
        f"{': prompts that help, ifd 1 or less' if method == 'ifd' else ''}: use another method, or widen these or the "
        "filters",
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
