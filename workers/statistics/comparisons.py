"""From the scores of a proof's runs to what it says: arms, comparisons, the premise and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.proof_result import ArmResult, Comparison, Interval, Premise, PremisePoint, Verdict
from workers.statistics.rank_correlation import rank_correlation
from workers.statistics.two_level import estimate
from workers.statistics.verdicts import FEWEST, decide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from app.core.contracts.proof_result import RunResult

LOWER_IS_BETTER = frozenset({"loss"})


@dataclass(frozen=True, slots=True)
class ScoredArm:
    """The runs of an arm that succeeded.

    Attributes:
        name: Of the arm.
        scores: By metric and seed, shape (items,). An arm that trains nothing has one run, which stands for any seed.
        every_seed: Whether its one run stands for any seed.
    """

    name: str
    scores: Mapping[str, Mapping[int, NDArray[np.float64]]]
    every_seed: bool = False

    def table(self, metric: str, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Scores of some seeds, shape (S, items)."""
        by_seed = self.scores[metric]
        return np.stack([by_seed[0 if self.every_seed else seed] for seed in seeds])

    def seeds(self, metric: str, of: Sequence[int]) -> list[int]:
        """The seeds among some that it has."""
        by_seed = self.scores[metric]
        return [seed for seed in of if (0 if self.every_seed else seed) in by_seed]


def summary(
    arm: ScoredArm, clusters: Mapping[str, NDArray[np.int64]]
) -> tuple[dict[str, float], dict[str, Interval | None]]:
    """Mean and interval of an arm, by metric."""
    means: dict[str, float] = {}
    intervals: dict[str, Interval | None] = {}
    for metric, by_seed in arm.scores.items():
        seeds = sorted(by_seed)
        if not seeds:
            continue
        table = np.stack([by_seed[seed] for seed in seeds])
        means[metric] = float(table.mean())
        intervals[metric] = estimate(table, clusters[metric]).interval if min(table.shape) >= FEWEST else None
    return means, intervals


def compared(
    arm: ScoredArm,
    against: ScoredArm,
    seeds: Sequence[int],
    clusters: Mapping[str, NDArray[np.int64]],
    effects: Mapping[str, float],
) -> list[Comparison]:
    """An arm against another, by metric."""
    common = {metric: against.seeds(metric, arm.seeds(metric, seeds)) for metric in effects}
    differences = {
        metric: arm.table(metric, shared) - against.table(metric, shared) if shared else np.empty((0, 0))
        for metric, shared in common.items()
    }
    decisions = decide(differences, clusters, effects, {metric: metric in LOWER_IS_BETTER for metric in effects})
    found = []
    for metric, decision in decisions.items():
        one, table = decision.estimate, differences[metric]
        found.append(
            Comparison(
                arm=arm.name,
                against=against.name,
                metric=metric,
                difference=float(table.mean()) if table.size else None,
                interval=None if one is None else one.interval,
                standard_error=None if one is None else one.standard_error,
                degrees_of_freedom=None if one is None else one.freedom,
                p_value=decision.adjusted_p,
                smallest_effect=effects[metric],
                verdict=decision.verdict,
                runs_needed=decision.runs_needed,
                seeds=len(common[metric]),
            )
        )
    return found


def premise_of(points: Sequence[PremisePoint], failed: int) -> Premise:
    """Whether subsets with more information came out with less loss."""
    found = rank_correlation([point.log_det for point in points], [point.gain for point in points])
    return Premise(spearman=found.coefficient, interval=found.interval, points=list(points), failed=failed)


def disagreements(comparisons: Sequence[Comparison]) -> list[str]:
    """Where one metric calls an arm better and another calls it worse, in words."""
    notes = []
    for arm in dict.fromkeys(comparison.arm for comparison in comparisons):
        by_verdict = {
            verdict: [one.metric for one in comparisons if one.arm == arm and one.verdict is verdict]
            for verdict in (Verdict.BETTER, Verdict.WORSE)
        }
        if all(by_verdict.values()):
            better, worse = (", ".join(names) for names in by_verdict.values())
            notes.append(f"The metrics disagree about {arm}: it is better by {better} and worse by {worse}.")
    return notes


def gain_per_hour(arm: ArmResult, against: ArmResult, selection_s: float) -> float | None:
    """Nats a token that an arm's loss is below the other's, for each hour of its selection and of one run.

    Args:
        arm: The arm.
        against: The other.
        selection_s: Seconds of the selection that the arm needed; 0 if it needed none.
    """
    ran = [run.seconds for run in arm.runs if _succeeded(run)]
    if not ran or "loss" not in arm.mean or "loss" not in against.mean:
        return None
    hours = (selection_s + float(np.mean(ran))) / 3600
    return (against.mean["loss"] - arm.mean["loss"]) / hours if hours > 0 else None


def _succeeded(run: RunResult) -> bool:
    return run.state == "succeeded"
