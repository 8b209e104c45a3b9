"""Several methods on the same sketches: did the penalty, or the method at all, do anything on this data?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.selection.clusters import cluster, coverage
from workers.selection.config import ConfigError, SelectionConfig
from workers.selection.kernels import DPP_RIDGE, unit_rows
from workers.selection.problem import Problem, pose
from workers.selection.progress import Progress, Watch
from workers.selection.selector import select
from workers.selection.sketches import Sketches
from workers.selection.state import GreedyState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from workers.selection.result import Selection

#: Clusters that diversity is measured by, where there are enough rows.
CLUSTERS = 64


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over repeats.

    Attributes:
        mean: Mean.
        std: Standard deviation with n - 1 in the denominator; 0 for a single run.
    """

    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class MethodReport:
    """One method over its repeats.

    Attributes:
        name: The name it was given.
        runs: Runs made; 1 for a method in which the seed changes nothing.
        picks: Rows picked.
        log_det: Mean of F after each pick, shape (k,), nats; k is that of the shortest run.
        log_det_std: Its standard deviation, shape (k,).
        final_log_det: F of the whole subset, nats.
        certificate: Proven share of the optimum.
        mean_conflict: Mean conflict of the picks, in [0, 1].
        conflicting_share: Share of the picks with a conflict above 0.
        cluster_coverage: Share of the clusters of directions with at least one pick.
        log_det_distance: How far the picks' directions are from mutually orthogonal, nats a row, 0 at best.
        mean_length: Mean length of the picked rows, in the unit of the lengths given; None without lengths.
        selections: The runs themselves.
    """

    name: str
    runs: int
    picks: Spread
    log_det: NDArray[np.float64]
    log_det_std: NDArray[np.float64]
    final_log_det: Spread
    certificate: Spread
    mean_conflict: Spread
    conflicting_share: Spread
    cluster_coverage: Spread
    log_det_distance: Spread
    mean_length: Spread | None
    selections: tuple[Selection, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All methods side by side.

    Attributes:
        methods: A report for each, in the order given.
        jaccard: Mean overlap |A and B| / |A or B| of the subsets of two methods over their runs, shape (m, m); on
            the diagonal that of a method's own different runs (1 where there is a single run).
        alpha: The scale that all were measured with.
    """

    methods: tuple[MethodReport, ...]
    jaccard: NDArray[np.float64]
    alpha: float


def compare(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    configs: Mapping[str, SelectionConfig],
    repeats: int = 5,
    *,
    lengths: Sequence[int] | NDArray[np.int64] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Comparison:
    """Run several methods over several seeds.

    Args:
        sketches: Shape (n, p), as for `select`.
        configs: Name -> config. All are measured with the alpha of the first. `SelectionConfig.baseline` makes a
            baseline's config out of a job's.
        repeats: Runs, with seeds `seed`, `seed + 1`, ..., of each method that draws at random.
        lengths: Length of each row, shape (n,), in any unit.
        on_progress: As for `select`.
        should_stop: As for `select`.

    Returns:
        Curves with error bars, overlaps, conflicts, lengths and diversity.

    Raises:
        ConfigError: If there are no configs or fewer than one repeat.
        ValueError: What `select` raises; or if `lengths` has not one entry a row.
    """
    if not configs or repeats < 1:
        raise ConfigError(f"compare needs a config and a repeat; got {len(configs)} and {repeats}")
    source = Sketches(sketches)
    if lengths is not None and len(lengths) != source.n:
        raise ValueError(f"lengths has {len(lengths)} entries for {source.n} rows")
    first = next(iter(configs.values()))
    problem = pose(Sketches(sketches, first.device), first, Watch(None, should_stop))[0]
    measure = _Measure(problem, None if lengths is None else np.asarray(lengths), first.seed)
    reports = []
    for name, config in configs.items():
        seeds = range(config.seed, config.seed + (repeats if _draws(config) else 1))
        runs = [
            select(
                sketches,
                replace(config, seed=seed, alpha=problem.alpha),
                on_progress=on_progress,
                should_stop=should_stop,
            )
            for seed in seeds
        ]
        reports.append(measure.report(name, runs))
    return Comparison(tuple(reports), _overlaps(reports), problem.alpha)


def jaccard(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """|A and B| / |A or B| of two subsets, 1 for two empty ones.

    Args:
        one: Row numbers, shape (k,).
        other: Row numbers, shape (l,).
    """
    union = np.union1d(one, other).size
    return np.intersect1d(one, other).size / union if union else 1.0


def log_det_distance(problem: Problem, indices: NDArray[np.int64]) -> float:
    """How far the directions of some rows are from as spread out as k directions in p dimensions can be.

    (best - log det(I + C_SS / ridge)) / k with C the cosines; best, by the concavity of log, is that of
    min(k, p) equal eigenvalues k / min(k, p). After Wang et al., "Diversity Measurement and Subset Selection for
    Instruction Tuning Datasets" (2024).

    Args:
        problem: The rows.
        indices: Row numbers, shape (k,), int64.

    Returns:
        Nats a row, at least 0 up to rounding.
    """
    count = len(indices)
    if count == 0:
        return 0.0
    state = GreedyState(replace(unit_rows(problem), budget=count))
    for row in indices.tolist():
        state.take(row)
    rank = min(count, problem.sketches.p)
    best = rank * math.log1p(count / (rank * DPP_RIDGE))
    return (best - float(state.trace().gains.sum())) / count


class _Measure:
    """What is measured of every run, against the same rows, clusters and lengths."""

    def __init__(self, problem: Problem, lengths: NDArray[Any] | None, seed: int) -> None:
        self._problem = problem
        self._lengths = lengths
        self._labels = cluster(problem, CLUSTERS, seed)

    def report(self, name: str, runs: list[Selection]) -> MethodReport:
        shortest = min(len(run.indices) for run in runs)
        curves = np.stack([run.log_det[:shortest] for run in runs])
        lengths = self._lengths
        return MethodReport(
            name=name,
            runs=len(runs),
            picks=_spread([len(run.indices) for run in runs]),
            log_det=curves.mean(axis=0),
            log_det_std=curves.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(shortest),
            final_log_det=_spread([run.marginal_gains.sum() for run in runs]),
            certificate=_spread([run.certificate for run in runs]),
            mean_conflict=_spread([_mean(run.conflicts) for run in runs]),
            conflicting_share=_spread([_mean(run.conflicts > 0) for run in runs]),
            cluster_coverage=_spread([coverage(self._labels, run.indices) for run in runs]),
            log_det_distance=_spread([log_det_distance(self._problem, run.indices) for run in runs]),
            mean_length=None if lengths is None else _spread([_mean(lengths[run.indices]) for run in runs]),
            selections=tuple(runs),
        )


def _draws(config: SelectionConfig) -> bool:
    """Whether the seed changes the picks."""
    return config.method == "random" or config.pool_size is not None or config.optimizer == "stochastic"


def _overlaps(reports: list[MethodReport]) -> NDArray[np.float64]:
    found = np.ones((len(reports), len(reports)))
    for i, one in enumerate(reports):
        for j, other in enumerate(reports):
            pairs = [
                jaccard(a.indices, b.indices)
                for at, a in enumerate(one.selections)
                for bt, b in enumerate(other.selections)
                if i != j or at < bt
            ]
            found[i, j] = np.mean(pairs) if pairs else 1.0
    return found


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if values.size else 0.0
