"""A proof as turns: wait for its job -> choose the arms' rows -> wait for the runs -> compare them.

`run_proof` carries a proof as far as it goes and parks it: for the selection job that makes the sketches, then for the
runs. Whoever ends the job or the last run wakes it. Held-out rows are no candidates: the selection is made again
without them, on the sketches that are there.
"""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.proof_plan import PlannedArm, PlannedSubset, ProofPlan
from app.core.contracts.proof_request import NONE, ProofRequest
from app.core.contracts.selection_request import ORDERED_METHODS
from app.core.db import selections
from app.core.db.tables import Job, Proof, ProofStage, State
from app.core.lifecycle import leases, proofs
from app.core.lifecycle.leases import OPEN, Waiting
from app.core.lifecycle.proofs import PlannedRun
from app.core.storage import arms_name, held_out_name, proof_prefix
from workers.data.corpus import LAYOUT_VERSION
from workers.data.stopping import Stopped
from workers.gradients.less import Plan
from workers.gradients.shards import ShardDamaged
from workers.runtime.context import current_context
from workers.runtime.failures import JobError, ProblemError
from workers.runtime.task import run_leased
from workers.selection import select
from workers.stages.candidates import DECONTAMINATE, left_out, picks_of, staying
from workers.stages.features import needed
from workers.stages.limits import read_membership
from workers.stages.methods import Methods, RowFeatures, target_rows
from workers.stages.objective import objective_of
from workers.stages.part import selection_config
from workers.stages.proof_arms import Chooser, shares_of
from workers.stages.proof_comparison import RunsOfProof
from workers.stages.proof_files import arm_key, run_key, write_arms
from workers.stages.proof_held_out import Splitter
from workers.stages.purposes import POOL, TARGET, directions_of, purpose_source, purposes_of, read_purpose
from workers.stages.reading import sketches_of, source_of
from workers.statistics.row_figures import kept_and_scaled, length_factors, row_figures
from workers.statistics.suspects import suspicion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from app.core.contracts.selection_request import SelectionSpec
    from app.core.db.tables import Json
    from workers.gradients.shards import ShardStore, StoredSketches
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.selection import Constraints, Metric, Selection
    from workers.stages.objective import Objective
    from workers.stages.proof_arms import ChosenArm, Pool
    from workers.stages.proof_held_out import Split
    from workers.stages.purposes import Directions
    from workers.stages.reading import Reading, Source
    from workers.statistics.row_figures import RowFigures

logger = logging.getLogger(__name__)

PREMISE = "premise/"
"""What the names of the premise's arms begin with; no arm of a request may be called so."""
UNTRAINED = f"{PREMISE}none"
MOST_JOBS = 3
"""Jobs that are made for one proof: more than one means that sketches vanished before they were read."""


def run_proof(proof_id: str, dispatch: int) -> None:
    """The queue's entry: carry a proof as far as it goes."""
    context = current_context()
    run_leased(context, Proof, proof_id, dispatch, lambda heartbeat: _Turn(context, heartbeat).run())
    with context.sessions() as session:
        proofs.drop_finished(session)
        session.commit()
        woken = proofs.wake(session, proof_id=uuid.UUID(proof_id))  # what it was parked for may have ended meanwhile
    context.queue.put_or_leave(woken)


def proof_source(context: WorkerContext, job: Job) -> Source:
    """What a proof's job read, to be read again as it was.

    Raises:
        JobError: The registered dataset is gone.
        UriRefused: This worker's settings do not allow a URI.
        ModelError: The adapter can't be read.
    """
    result = job.result or {}
    return replace(source_of(context, job.id), fingerprint=result["fingerprint"], planned=True)


class _Turn:
    """One turn at a proof."""

    def __init__(self, context: WorkerContext, heartbeat: LeaseHeartbeat) -> None:
        self.context, self.heartbeat = context, heartbeat
        self.id = heartbeat.lease.id
        with context.sessions() as session:
            proof = session.get_one(Proof, self.id)
            self.job = None if proof.job_id is None else session.get(Job, proof.job_id)
            self.runs = proofs.runs_of(session, self.id)
        self.proof = proof
        self.request = ProofRequest.model_validate(proof.request)
        self.kept: Json = proof.plan or {}

    def run(self) -> None:
        """Park the proof or finish it; raises what ends it otherwise."""
        if self.runs:
            self._compare()
            return
        job = self.job
        if job is None:
            raise JobError("job-gone", "The proof's job is gone", "job", "it was deleted: submit the proof again")
        if job.state in OPEN:
            self._wait_for(job.id)
            return
        if job.state is not State.SUCCEEDED:
            raise ProblemError(job.error or _cancelled(job.id))
        if (job.result or {}).get("limited") is not None:
            raise JobError(
                "job-limited",
                "The proof's job has not scored all rows",
                "job",
                "its limits left rows without gradients, and a proof draws random rows from all: submit the job again "
                "without limits, and prove that",
            )
        try:
            self._plan(job)
        except ShardDamaged:
            logger.warning("proof %s: its job's sketches are gone, they are made again", self.id)
            self._make_again(job)

    def _wait_for(self, job_id: uuid.UUID) -> None:
        self.heartbeat.stop()
        with self.context.sessions() as session:
            if not proofs.park_for_job(session, self.heartbeat.lease, job_id, self.kept):
                raise Stopped

    def _make_again(self, job: Job) -> None:
        """Have a job like the proof's make the sketches that retention has taken meanwhile."""
        made = self.kept.get("jobs", 1)
        if made >= MOST_JOBS:
            raise JobError(
                "sketches-vanish",
                "The sketches do not stay",
                "gradients",
                f"they were gone after {MOST_JOBS} jobs had made them: raise SPICE_ARTIFACTS_MAX_BYTES",
            )
        again = Job(
            id=uuid.uuid4(),
            name=job.name,
            metadata_=dict(job.metadata_),
            dataset_id=job.dataset_id,
            request={key: value for key, value in job.request.items() if key != "webhook"},
            timeout_s=job.timeout_s,
            priority=job.priority,
            rows=job.rows,
            expires_at=job.expires_at,
            project_id=job.project_id,
        )
        with self.context.sessions() as session:
            session.add(again)
            session.commit()
        self.kept = {**self.kept, "jobs": made + 1}
        self.context.queue.put_or_leave([Waiting(Job, again.id, 1)])
        self._wait_for(again.id)

    def _plan(self, job: Job) -> None:
        """Choose the rows of all arms, and let go of the proof until its runs are done."""
        began = time.monotonic()
        source = proof_source(self.context, job)
        splitter = Splitter(self.context, self.heartbeat, self.request, source.request.model)
        split, reading = splitter.split(source)
        pool, information = self._candidates(job, source, reading, split)
        spec = source.request.selection
        chooser = Chooser(self.request, spec, pool, information.picks, information.included)
        trained = self._trained(chooser, information.picks(spec))
        selection_s = sum((job.result or {}).get("seconds", {}).values()) + time.monotonic() - began
        plan = ProofPlan(
            corpus=reading.corpus.digest,
            model=reading.model.revision,
            fingerprint=reading.snapshot.fingerprint,
            arms=[
                PlannedArm(name=arm.name, steps=arm.steps, drawn=arm.drawn, selects=arm.selects, left_out=arm.left_out)
                for arm in trained.arms
            ],
            baseline=trained.baseline,
            premise=[
                PlannedSubset(arm=name, log_det=information.log_det(places, spec), selected_share=share)
                for name, (places, share) in trained.subsets.items()
            ],
            selection_s=round(selection_s, 3),
            held_out=len(split.held_out.samples),
            candidates=len(pool.candidates),
            duplicates=split.duplicates,
            sources=split.sources,
            not_scored=split.not_scored,
        )
        content = split.held_out.content()
        self.context.artifacts.write(held_out_name(self.id), content)
        write_arms(self.context.artifacts, arms_name(self.id), trained.rows())
        identity = self._identity(source, plan, hashlib.sha256(content).hexdigest())
        self._park(trained.runs(identity, self.request.seeds), plan)

    def _candidates(self, job: Job, source: Source, reading: Reading, split: Split) -> tuple[Pool, _Information]:
        """The rows that a proof chooses from, and what selects from them.

        Raises:
            JobError: None is left.
            ShardDamaged: The job's sketches are gone.
        """
        store = self._store((job.result or {})["sketches"], source, reading)
        sketches = store.load(scratch=self.context.settings.cache_path, should_stop=self.heartbeat.should_stop)
        finite = np.flatnonzero(sketches.finite)
        outside = {**split.pool.outside, "non_finite_gradient": np.flatnonzero(~sketches.finite)}
        pool = replace(split.pool, candidates=np.intersect1d(split.pool.candidates, finite), outside=outside)
        if not len(pool.candidates):
            raise JobError(
                "pool-empty",
                "No rows are left to choose from",
                "held_out",
                f"of {len(reading.corpus)} usable rows {len(split.pool.outside['held_out'])} are held out and "
                f"{split.duplicates} are equal to held-out rows: hold fewer out",
            )
        values = sketches.values[np.searchsorted(finite, pool.candidates)]
        losses = (sketches.token_losses, sketches.unprompted, sketches.end_losses)
        figures = row_figures(values, *(one[pool.candidates] for one in losses))
        others = _Others(store, sketches.finite, self._overlapping(job), *self._beside(job, source))
        return pool, _Information(
            self.context, self.heartbeat, source, reading, pool.candidates, values, figures, others
        )

    def _trained(self, chooser: Chooser, selected: NDArray[np.int64]) -> _Trained:
        """All that the proof trains on: the arms, and the subsets of its premise."""
        wanted = self.request.premise
        shares = () if wanted is None else shares_of(wanted.subsets)
        return _Trained(
            arms=chooser.choose(selected),
            subsets={
                f"{PREMISE}{number:03d}": (chooser.mixture(number, selected, share), share)
                for number, share in enumerate(shares)
            },
            subset_steps=chooser.budget_steps(selected),
            has_untrained_arm=NONE in self.request.labels,
        )

    def _overlapping(self, job: Job) -> NDArray[np.int64]:
        """The rows that the job found to share text with its evaluation set."""
        with self.context.sessions() as session:
            found = {one.reason: one.row_indices for one in selections.rejected(session, job.id)}
        return np.array(found.get(f"{selections.FILTERED}{DECONTAMINATE}", []), dtype=np.int64)

    def _beside(
        self, job: Job, source: Source
    ) -> tuple[dict[str, Directions], ShardStore | None, StoredSketches | None]:
        """The sketches of what the job's selection is for, by role; the target's store, and what was loaded of it."""
        found, target, loaded = {}, None, None
        for role, purpose in purposes_of(source.request.selection).items():
            kept = (job.result or {})[role]
            other = purpose_source(self.context, job.id, source, role, kept["fingerprint"])
            reading = read_purpose(self.context, role, purpose, other, self.heartbeat.should_stop)
            store = self._store(kept["sketches"], source, reading)
            stored = store.load(scratch=self.context.settings.cache_path, should_stop=self.heartbeat.should_stop)
            found[role] = directions_of(self.context, role, purpose, reading, stored, self.heartbeat.should_stop)
            if role == TARGET:
                target, loaded = store, stored
        return found, target, loaded

    def _store(self, key: str, source: Source, reading: Reading) -> ShardStore:
        store = sketches_of(self.context, source.request, key, reading.corpus)
        store.mark_used()
        return store

    def _identity(self, source: Source, plan: ProofPlan, held_out: str) -> Json:
        """All that a run's scores depend on besides its rows, its seed and its steps."""
        return {
            "corpus": plan.corpus,
            "model": plan.model,
            "dtype": source.request.model.dtype,
            "layout": LAYOUT_VERSION,
            "training": self.request.training.model_dump(mode="json", exclude={"batch_tokens", "keep_adapters"}),
            "held_out": held_out,
            "metrics": [metric.model_dump(mode="json") for metric in self.request.metrics],
            "owner": source.sketch_owner,
        }

    def _park(self, runs: Sequence[PlannedRun], plan: ProofPlan) -> None:
        self.heartbeat.stop()
        with self.context.sessions() as session:
            waiting = proofs.park_for_runs(session, self.heartbeat.lease, runs, plan.model_dump(mode="json"))
        if not waiting:
            self.context.artifacts.remove_all(proof_prefix(self.id))
            raise Stopped
        self.context.queue.put_or_leave(waiting)

    def _compare(self) -> None:
        self.heartbeat.enter(ProofStage.COMPARING, None, "runs")
        self.heartbeat.tell()  # a stage that no other follows may end before the next heartbeat
        found = RunsOfProof(self.context.artifacts, self.id, self.request, self.runs)
        result = found.result(ProofPlan.model_validate(self.kept))
        with self.context.sessions() as session:
            if not leases.finish(
                session,
                self.heartbeat.lease,
                State.SUCCEEDED,
                result=result.model_dump(mode="json"),
                stage=None,
                progress=None,
                plan=None,
            ):
                session.rollback()
                raise Stopped
            session.commit()


@dataclass(frozen=True, slots=True)
class _Trained:
    """What a proof trains on.

    Attributes:
        arms: Those of the request.
        subsets: Of the premise: places among the pool's samples, and the share of them that the selection picked.
        subset_steps: Training steps of each subset.
        has_untrained_arm: Whether one of the arms is the model as it is.
    """

    arms: Sequence[ChosenArm]
    subsets: Mapping[str, tuple[NDArray[np.int64], float]]
    subset_steps: int
    has_untrained_arm: bool

    @property
    def baseline(self) -> str | None:
        """The arm whose loss the premise's gains are counted from: the model as it is."""
        if not self.subsets:
            return None
        return NONE if self.has_untrained_arm else UNTRAINED

    def rows(self) -> dict[str, NDArray[np.int64]]:
        """The places of every arm and subset, by the keys that their runs find them with."""
        found = {
            arm_key(arm.name, seed, drawn=arm.drawn): places for arm in self.arms for seed, places in arm.places.items()
        }
        found |= {name: places for name, (places, _) in self.subsets.items()}
        return found | ({UNTRAINED: np.empty(0, dtype=np.int64)} if self.baseline == UNTRAINED else {})

    def runs(self, identity: Json, seeds: int) -> list[PlannedRun]:
        """A run for each arm and seed, and for each subset; an arm that trains nothing has one."""
        planned = [
            _planned(arm.name, seed, arm.places[seed if arm.drawn else 0], arm.steps, identity)
            for arm in self.arms
            for seed in range(seeds if arm.steps else 1)
        ]
        planned += [
            _planned(name, 0, places, self.subset_steps, identity) for name, (places, _) in self.subsets.items()
        ]
        if self.baseline == UNTRAINED:
            planned.append(_planned(UNTRAINED, 0, np.empty(0, dtype=np.int64), 0, identity))
        return planned


@dataclass(frozen=True, slots=True)
class _Made:
    """A selection from a proof's candidates.

    Attributes:
        places: Of its picks among the candidates, in the order of picking.
        alpha: That it was made with.
        metric: That it was made under, or None.
        included: Row numbers that had to be picked, held out or not.
    """

    places: NDArray[np.int64]
    alpha: float
    metric: Metric | None
    included: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Others:
    """What selections need besides the sketches of a proof's candidates.

    Attributes:
        store: Of the job's own dataset.
        finite: Which samples of it have a finite gradient, shape (samples,).
        overlapping: Rows that share text with an evaluation set.
        beside: The sketches of what the selection is for, by role.
        target: The target's store; None without one.
        loaded: What was loaded of it.
    """

    store: ShardStore
    finite: NDArray[np.bool_]
    overlapping: NDArray[np.int64]
    beside: Mapping[str, Directions]
    target: ShardStore | None
    loaded: StoredSketches | None


@dataclass(frozen=True, slots=True)
class _Information:
    """Selections from a proof's candidates, and what subsets of them hold."""

    context: WorkerContext
    heartbeat: LeaseHeartbeat
    source: Source
    reading: Reading
    candidates: NDArray[np.int64]
    values: NDArray[np.float32]
    figures: RowFigures
    others: _Others
    made: dict[str, _Made] = field(default_factory=dict)

    def picks(self, spec: SelectionSpec) -> NDArray[np.int64]:
        """The picks of a selection, as places among the pool's samples."""
        return self.candidates[self._selected(spec).places]

    def included(self, spec: SelectionSpec) -> NDArray[np.int64]:
        """The row numbers that a selection has to pick, those that a proof holds out among them."""
        return self._selected(spec).included

    def log_det(self, places: NDArray[np.int64], spec: SelectionSpec) -> float:
        """F(S) = log det(I + alpha K_SS) in nats, with the selection's own alpha."""
        at = np.searchsorted(self.candidates, places)
        rows, factors = self.values[at].astype(np.float64), length_factors(self.figures.norm, spec.normalize)
        rows, made = rows if factors is None else rows * factors[at, None], self._selected(spec)
        if made.metric is not None:
            rows = made.metric.of(rows, unit=False).astype(np.float64)
        return float(np.linalg.slogdet(np.eye(len(rows)) + made.alpha * rows @ rows.T)[1])

    def _selected(self, spec: SelectionSpec) -> _Made:
        """A selection, which is made once."""
        name = spec.model_dump_json()
        if name not in self.made:
            self.made[name] = self._made(spec)
        return self.made[name]

    def _made(self, spec: SelectionSpec) -> _Made:
        settings, corpus, stop = self.context.settings, self.reading.corpus, self.heartbeat.should_stop
        asked = read_membership(self.reading.snapshot, corpus, spec, self.source.request.dataset, settings, stop)
        rows, tokens = corpus.rows[self.candidates], corpus.lengths[self.candidates]
        # A row that is held out, or not finite, can't be picked, whatever has to be.
        include = asked.include[np.isin(asked.include, rows)]
        overlapping = self.others.overlapping if spec.evaluation_set is not None else asked.overlapping
        membership = replace(asked, include=include, overlapping=overlapping)
        dropped = left_out(self.figures, suspicion(self.figures), spec, rows, tokens, membership)
        keep = staying(len(self.candidates), dropped)
        if not len(keep):
            raise JobError(
                "filters-leave-nothing",
                "No row passes the filters",
                "selection.filters",
                f"all {len(self.candidates)} candidates of the proof are beyond a bound: widen the bounds",
            )
        budget = None
        if spec.budget.tokens is None:
            there = len(keep) - int(np.isin(rows[keep], membership.exclude).sum())
            budget = min(picks_of(spec.budget, len(self.candidates), 0), there)
        factors = length_factors(self.figures.norm, spec.normalize)
        values = kept_and_scaled(self.values.copy(), keep, factors)
        used = purposes_of(spec)
        beside = {role: one for role, one in self.others.beside.items() if role in used}
        objective = objective_of(spec, values, rows[keep], membership, tokens[keep], beside, settings.cache_path)
        meter = self.heartbeat.enter(ProofStage.SELECTING, budget or len(keep), "picks")
        config = replace(selection_config(spec, budget=budget, device=str(self.context.device)), curvature=False)
        methods = self._methods(spec, keep, values, objective) if spec.method in ORDERED_METHODS else None

        def run(count: int | None, limits: Constraints | None) -> Selection:
            wanted = replace(config, budget=count)
            if methods is not None:
                return methods.select(spec.method, wanted, limits)
            return select(
                objective.values,
                wanted,
                limits,
                norms=self.figures.norm[keep],
                on_progress=lambda progress: meter.at(progress.done) if progress.stage == "picking" else None,
                should_stop=stop,
            )

        selection, _ = objective.limits.apply(budget, run)
        if not len(selection.indices):
            raise JobError(
                "no-information",
                "The gradients say nothing",
                "gradients",
                f"all {len(self.values)} gradients are zero, so no row is better than another",
            )
        return _Made(keep[selection.indices], selection.alpha, objective.bearings.metric, asked.include)

    def _methods(
        self, spec: SelectionSpec, keep: NDArray[np.int64], values: NDArray[np.float32], objective: Objective
    ) -> Methods:
        """What runs a method that orders rows by other things than their sketches.

        Raises:
            JobError: The job did not compute what the method needs.
        """
        others, corpus, stop = self.others, self.reading.corpus, self.heartbeat.should_stop
        alone, pool = spec.model_copy(update={"baselines": ()}), others.store.dataset
        missing = others.store.missing_features(needed(alone, POOL, pool))
        if others.target is not None:
            missing += others.target.missing_features(needed(alone, TARGET, pool))
        if missing:
            raise JobError(
                "arm-impossible",
                "An arm's method needs what the job did not compute",
                "arms",
                f"method {spec.method} needs passes of the model: name it in selection.baselines of the job",
            )
        target = None
        if others.target is not None and others.loaded is not None:
            directions = others.beside[TARGET]
            target = target_rows(alone, directions, others.loaded, others.target, pool, stop)
        return Methods(
            spec=alone,
            places=np.searchsorted(np.flatnonzero(others.finite), self.candidates[keep]),
            sketches=values,
            values=objective.values,
            loss=self.figures.loss[keep],
            ifd=self.figures.ifd[keep],
            response_tokens=corpus.response_tokens()[self.candidates][keep],
            rows=RowFeatures(others.store, others.finite, stop),
            rates=Plan.of(len(corpus)).of_epochs,
            target=target,
            known={},
            should_stop=stop,
        )


def _planned(arm: str, seed: int, places: NDArray[np.int64], steps: int, identity: Json) -> PlannedRun:
    return PlannedRun(arm, seed, run_key({**identity, "seed": seed, "steps": steps}, places), steps)


def _cancelled(job_id: uuid.UUID) -> Json:
    return {
        "type": "job-cancelled",
        "title": "The proof's job was cancelled",
        "detail": f"job {job_id} was cancelled, and the proof takes its sketches: submit the proof again",
    }
