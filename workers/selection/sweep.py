"""How much the answer depends on lambda, omega and alpha."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from workers.selection.arithmetic import set_arithmetic
from workers.selection.bounds import outside_bound
from workers.selection.compare import jaccard
from workers.selection.config import ConfigError, SelectionConfig
from workers.selection.partitioned import before_early_stop
from workers.selection.problem import Problem, posed_problem, settle_alpha
from workers.selection.progress import Progress, Watch
from workers.selection.selector import climb, followed
from workers.selection.sketches import Sketches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from workers.selection.constraints import Constraints
    from workers.selection.lazy import Climb
    from workers.selection.result import StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The settings that a sweep combines.

    Attributes:
        conflict_penalty: Lambdas, nats.
        early_stop_ratio: Omegas in (0, 1]; None for no early stop.
        alpha: Positive numbers, or "auto".
    """

    conflict_penalty: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 1.0)
    early_stop_ratio: Sequence[float | None] = (None,)
    alpha: Sequence[float | Literal["auto"]] = ("auto",)


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """What one combination of settings gives.

    Attributes:
        conflict_penalty: Lambda, nats.
        early_stop_ratio: Omega, or None for no early stop.
        alpha: The number behind the setting.
        k: Rows picked.
        log_det: F after each pick, shape (k,), nats, at this alpha.
        mean_conflict: Mean conflict of the picks, in [0, 1].
        certificate: Proven share of the best, in [0, 1].
        shared: |A and B| / |A or B| with the picks of the config itself.
        lacking: What of the constraints the picks do not meet, as an early stop may leave it; None if they meet all.
        indices: The picks, shape (k,), int64.
    """

    conflict_penalty: float
    early_stop_ratio: float | None
    alpha: float
    k: int
    log_det: NDArray[np.float64]
    mean_conflict: float
    certificate: float
    shared: float
    lacking: str | None
    indices: NDArray[np.int64]


def sweep(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    config: SelectionConfig,
    grid: Grid,
    constraints: Constraints | None = None,
    *,
    own: NDArray[np.int64] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[SweepPoint]:
    """Select with every combination of some lambdas, omegas and alphas.

    The rows are checked and measured once, and each pair of alpha and lambda is selected once: stopping early changes
    no pick before the stop, so every omega is a prefix of the same sequence. With a token budget the better of two runs
    may be another one for a prefix, so each omega is selected.

    Args:
        sketches: Shape (n, p), as for `select`.
        config: What the picks are shared with; method "spice", exact score.
        grid: The settings to combine.
        constraints: As for `select`.
        own: The picks that each combination's are held against; None: those of the config.
        on_progress: As for `select`, over again for each selection.
        should_stop: As for `select`.

    Returns:
        A point for each combination: alpha in the outermost order, then lambda, then omega.

    Raises:
        ConfigError: If the config is not such a selection, or a value is out of its range.
        ValueError: What `select` raises.
    """
    if config.method != "spice" or config.fisher != "exact":
        raise ConfigError("a sweep needs method 'spice' with the exact score")
    for penalty, ratio, alpha in product(grid.conflict_penalty, grid.early_stop_ratio, grid.alpha):
        replace(config, conflict_penalty=penalty, early_stop_ratio=ratio, alpha=alpha)  # refuses what is out of range
    set_arithmetic()
    watch = Watch(on_progress, should_stop)
    problem = posed_problem(Sketches(sketches, config.device), config, watch, constraints)[0]
    own = climb(problem, watch).picked.trace().indices if own is None else own
    points = []
    for alpha, penalty in product(grid.alpha, grid.conflict_penalty):
        setting = replace(problem, alpha=settle_alpha(alpha, problem.squared_norms), penalty=penalty)
        for ratio, found in _runs(setting, grid.early_stop_ratio, watch):
            points.append(_point(found, setting, ratio, own, watch))
    return points


def _runs(problem: Problem, ratios: Sequence[float | None], watch: Watch) -> list[tuple[float | None, Climb]]:
    """The selection for each omega."""
    if problem.constraints is not None and problem.constraints.token_budget is not None:
        return [(ratio, climb(replace(problem, early_stop_ratio=ratio), watch)) for ratio in ratios]
    whole = climb(replace(problem, early_stop_ratio=None), watch)
    trace = whole.picked.trace()
    runs = []
    for ratio in ratios:
        given = 0 if problem.constraints is None else len(problem.constraints.include)
        k = given + before_early_stop(trace.gains[given:], ratio)
        stopped = followed(problem, trace.indices[:k], "early_stop", watch) if k < len(trace.indices) else whole
        runs.append((ratio, stopped))
    return runs


def _point(found: Climb, problem: Problem, ratio: float | None, own: NDArray[np.int64], watch: Watch) -> SweepPoint:
    trace = found.picked.trace()
    stop: StopReason = found.stop
    sources = None if problem.constraints is None else problem.constraints.sources
    optimum = found.picked.log_det + found.pool.bound_outside(found.picked, outside_bound(problem, found.picked, stop))
    watch.step("certifying", problem.sketches.n, problem.sketches.n)
    return SweepPoint(
        conflict_penalty=problem.penalty,
        early_stop_ratio=ratio,
        alpha=problem.alpha,
        k=len(trace.indices),
        log_det=trace.gains.cumsum(),
        mean_conflict=float(trace.conflicts.mean()) if len(trace.indices) else 0.0,
        certificate=found.picked.log_det / optimum if optimum > 0 else 1.0,
        shared=jaccard(trace.indices, own),
        lacking=None if sources is None else sources.lacking(found.picked.rows),
        indices=trace.indices,
    )
