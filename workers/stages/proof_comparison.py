"""From the runs of a proof to its result."""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.core.contracts.proof_request import LOSS, NONE
from app.core.contracts.proof_result import ArmResult, Cost, PremisePoint, ProofResult, RunOutcome, RunResult
from app.core.contracts.proof_result import HeldOutRows as HeldOutResult
from app.core.db.tables import State
from app.core.storage import held_out_name, run_outcome_name, run_prefix, scores_name, write_checked
from workers.runtime.failures import JobError, ProblemError
from workers.stages.proof_files import HeldOutRows, read_outcome
from workers.statistics.comparisons import ScoredArm, compared, disagreements, gain_per_hour, premise_of, summary

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from app.core.contracts.proof_plan import PlannedArm, ProofPlan
    from app.core.contracts.proof_request import ProofRequest
    from app.core.contracts.proof_result import Premise
    from app.core.db.tables import Json, ProofRun
    from app.core.storage import ArtifactStore


@dataclass(frozen=True, slots=True)
class RunsOfProof:
    """The runs of a proof, all of which have ended.

    Attributes:
        artifacts: Where their scores are, and where what they scored is kept.
        proof_id: The proof.
        request: Its request.
        runs: Its runs.
    """

    artifacts: ArtifactStore
    proof_id: uuid.UUID
    request: ProofRequest
    runs: Sequence[ProofRun]

    def result(self, plan: ProofPlan) -> ProofResult:
        """What the proof says.

        Raises:
            ProblemError: Not one run succeeded.
            JobError: Files of the proof are gone.
        """
        done = [run for run in self.runs if run.state is State.SUCCEEDED]
        failed = [run for run in self.runs if run.state is State.FAILED]
        if not done:
            raise ProblemError(_all_failed(failed))
        held_out = HeldOutRows.read(self.artifacts, held_out_name(self.proof_id))
        outcomes = {run.id: RunOutcome.model_validate(run.outcome) for run in done}
        scores = {run.id: self._scores(run) for run in done}
        self._keep_scores(done, scores, held_out)
        effects = self.request.effects
        clusters = _clusters_by_metric(held_out, effects)
        scored = {
            arm.name: ScoredArm(
                arm.name,
                {
                    metric: {run.seed: scores[run.id][metric] for run in done if run.arm == arm.name}
                    for metric in effects
                },
                every_seed=arm.name == NONE,
            )
            for arm in plan.arms
        }
        arms = [self._arm(arm, scored[arm.name], outcomes, clusters) for arm in plan.arms]
        against = scored[self.request.against]
        seeds = range(self.request.seeds)
        comparisons = [
            comparison
            for name, arm in scored.items()
            if name != self.request.against
            for comparison in compared(arm, against, seeds, clusters, effects)
        ]
        return ProofResult(
            held_out=HeldOutResult(
                rows=plan.held_out,
                sources=plan.sources,
                candidates=plan.candidates,
                duplicates_dropped=plan.duplicates,
                not_scored=plan.not_scored,
            ),
            arms=arms,
            comparisons=comparisons,
            premise=self._premise(plan, done) if plan.premise else None,
            cost=self._cost(plan, arms, outcomes),
            failed_runs=len(failed),
            notes=[*_failures(failed), *disagreements(comparisons)],
            versions={name: version(name) for name in ("spice-select", "torch", "transformers", "peft")},
        )

    def _keep_scores(
        self,
        done: Sequence[ProofRun],
        scores: Mapping[uuid.UUID, Mapping[str, NDArray[np.float64]]],
        held_out: HeldOutRows,
    ) -> None:
        """Write what every run scored on every held-out row, for who makes other statistics of it."""
        rows = np.array([sample.row for sample in held_out.samples])
        with_options = rows[np.unique(held_out.option_item)]
        columns: dict[str, list[Any]] = {"arm": [], "seed": [], "metric": [], "row": [], "score": []}
        for run in done:
            for metric, values in scores[run.id].items():
                columns["arm"] += [run.arm] * len(values)
                columns["seed"] += [run.seed] * len(values)
                columns["metric"] += [metric] * len(values)
                columns["row"] += (with_options if metric == "choice" else rows).tolist()
                columns["score"] += values.tolist()
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink, compression="zstd")
        write_checked(self.artifacts, scores_name(self.proof_id), sink.getvalue())

    def _scores(self, run: ProofRun) -> dict[str, NDArray[np.float64]]:
        found = read_outcome(self.artifacts, run_outcome_name(run.key))
        if found is None:
            raise JobError(
                "proof-files-gone",
                "The scores of a run are gone",
                "seeds",
                f"those of arm {run.arm}, seed {run.seed}, are not in the artifact store: submit the proof again",
            )
        return found[1]

    def _arm(
        self,
        arm: PlannedArm,
        scored: ScoredArm,
        outcomes: Mapping[uuid.UUID, RunOutcome],
        clusters: Mapping[str, NDArray[np.int64]],
    ) -> ArmResult:
        means, intervals = summary(scored, clusters)
        runs = [self._run_result(run, outcomes.get(run.id)) for run in self.runs if run.arm == arm.name]
        known = [run for run in runs if run.state == State.SUCCEEDED]
        return ArmResult(
            name=arm.name,
            rows=float(np.mean([run.rows for run in known])) if known else 0.0,
            tokens=float(np.mean([run.tokens for run in known])) if known else 0.0,
            steps=arm.steps,
            left_out=arm.left_out,
            runs=runs,
            mean=means,
            interval=intervals,
        )

    def _run_result(self, run: ProofRun, outcome: RunOutcome | None) -> RunResult:
        names = {metric.name for metric in self.request.metrics}
        kept = self.request.training.keep_adapters and outcome is not None and outcome.steps > 0
        return RunResult(
            seed=run.seed,
            state=run.state,
            metrics={} if outcome is None else {name: outcome.metrics[name] for name in sorted(names)},
            seconds=0.0 if outcome is None else outcome.seconds,
            rows=0 if outcome is None else outcome.rows,
            tokens=0 if outcome is None else outcome.tokens,
            reused=run.reused,
            adapter=f"{run_prefix(run.key)}adapter/" if kept else None,
            error=run.error,
        )

    def _premise(self, plan: ProofPlan, done: Sequence[ProofRun]) -> Premise:
        losses = {run.arm: RunOutcome.model_validate(run.outcome).metrics[LOSS] for run in done if run.seed == 0}
        before = losses.get(plan.baseline or NONE)
        points = [
            PremisePoint(log_det=subset.log_det, gain=before - losses[subset.arm], selected_share=subset.selected_share)
            for subset in plan.premise
            if before is not None and subset.arm in losses
        ]
        return premise_of(points, len(plan.premise) - len(points))

    def _cost(self, plan: ProofPlan, arms: Sequence[ArmResult], outcomes: Mapping[uuid.UUID, RunOutcome]) -> Cost:
        against = next(arm for arm in arms if arm.name == self.request.against)
        selects = {arm.name for arm in plan.arms if arm.selects}
        return Cost(
            selection_s=plan.selection_s,
            training_s=round(sum(outcome.seconds for outcome in outcomes.values()), 3),
            tokens=sum(outcome.trained_tokens for outcome in outcomes.values()),
            runs_trained=sum(not run.reused for run in self.runs if run.id in outcomes),
            runs_reused=sum(run.reused for run in self.runs if run.id in outcomes),
            gain_per_hour={
                arm.name: gain_per_hour(arm, against, plan.selection_s if arm.name in selects else 0.0)
                for arm in arms
                if arm.name != self.request.against
            },
        )


def _clusters_by_metric(held_out: HeldOutRows, metrics: Mapping[str, float]) -> dict[str, NDArray[np.int64]]:
    """The source of each scored item; `choice` scores those rows alone that have options."""
    found = dict.fromkeys(metrics, held_out.clusters)
    if "choice" in found:
        numbers = held_out.clusters[np.unique(held_out.option_item)]
        found["choice"] = np.unique(numbers, return_inverse=True)[1].astype(np.int64)
    return found


def _failures(failed: Sequence[ProofRun]) -> list[str]:
    if not failed:
        return []
    named = ", ".join(f"{run.arm} with seed {run.seed}" for run in failed[:10])
    more = f" and {len(failed) - 10} more" if len(failed) > 10 else ""  # noqa: PLR2004 - as many as are named
    return [f"{len(failed)} runs failed, and the comparisons are of the others: {named}{more}. See /runs for why."]


def _all_failed(failed: Sequence[ProofRun]) -> Json:
    first = next((run.error for run in failed if run.error), None)
    detail = "none of the runs succeeded" if first is None else f"none of the runs succeeded: {first.get('detail')}"
    return {"type": "runs-failed", "title": "All runs failed", "detail": detail}
