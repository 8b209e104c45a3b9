"""The entry: from a matrix of sketches and a config to a selection with its guarantees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.arithmetic import set_arithmetic
from workers.selection.baselines import at_random, by_norm
from workers.selection.certificate import guarantees, largest_gains
from workers.selection.diagonal import diagonal_greedy
from workers.selection.kernels import unit_rows
from workers.selection.lazy import lazy_greedy
from workers.selection.picked import Picked
from workers.selection.pool import Pool
from workers.selection.problem import Problem, pose
from workers.selection.progress import Progress, Watch
from workers.selection.result import Dropped, Selection, StopReason
from workers.selection.sketches import Sketches

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workers.selection.config import SelectionConfig


def select(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    config: SelectionConfig,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Selection:
    """Pick the most informative, least conflicting rows.

    Args:
        sketches: Gradient sketches, shape (n, p): numpy (memory-mapped or not) or torch, float16 to float64.
            Never copied whole and never written to.
        config: What to maximise and how far.
        on_progress: Called after each tile of rows and each pick.
        should_stop: Asked as often; once it says True the selection ends within one tile or one pick.

    Returns:
        The picks in order with gains in nats, conflicts, and what is proven about them.

    Raises:
        SketchShapeError: If `sketches` is not a float matrix (n, p) with n, p >= 1.
        ConfigError: If there is no such device, or the rows are too small for alpha = "auto" (float64 alone).
        InvalidRowsError: If rows hold NaN or inf and `config.on_invalid` is "raise".
        BudgetError: If the budget exceeds the rows that can be picked.
        SelectionCancelledError: If `should_stop` returned True.
    """
    set_arithmetic()
    watch = Watch(on_progress, should_stop)
    problem, usable, dropped = pose(Sketches(sketches, config.device), config, watch)
    if not config.climbs_objective:
        order, stop = _order(problem, torch.nonzero(usable).flatten().cpu().numpy(), config, watch)
        picked, pool = followed(problem, order.tolist(), watch)
    else:
        picked, pool, stop = lazy_greedy(problem, watch)
    outside = pool.bound_outside(picked, lambda gains: largest_gains(gains, len(picked.rows)))
    watch.step("certifying", problem.sketches.n, problem.sketches.n)
    return report(
        problem,
        picked,
        dropped,
        stop,
        outside=outside,
        theorem_holds=config.climbs_objective,
        curvature=config.curvature,
    )


def followed(problem: Problem, order: list[int], watch: Watch) -> tuple[Picked, Pool]:
    """The set of given rows in their order, and all rows up to date with it.

    Args:
        problem: The rows.
        order: Row numbers.
        watch: The caller's callbacks.
    """
    picked, pool = Picked(problem), Pool(problem)
    pool.sweep(picked.add(order), picked.mean)
    watch.step("picking", len(order), problem.budget)
    return picked, pool


def _order(
    problem: Problem, usable: NDArray[np.int64], config: SelectionConfig, watch: Watch
) -> tuple[NDArray[np.int64], StopReason]:
    """The picks of a method that does not climb the objective, as row numbers."""
    if config.method == "random":
        return at_random(usable, problem.budget, config.seed), "budget"
    if config.method == "grad_norm":
        order = by_norm(problem.squared_norms, problem.budget)
        return order, "budget" if len(order) == problem.budget else "exhausted"
    if config.fisher == "reference":
        return diagonal_greedy(problem, watch)
    climb = lazy_greedy(unit_rows(problem), watch)
    return climb.picked.trace().indices, climb.stop


def report(
    problem: Problem,
    picked: Picked,
    dropped: Dropped,
    stop: StopReason,
    *,
    outside: float,
    theorem_holds: bool,
    curvature: bool,
) -> Selection:
    """The picks with everything that is proven about them.

    Args:
        problem: What was selected from.
        picked: The set.
        dropped: Rows left out before.
        stop: Why the picking ended.
        outside: Sum of the largest gains outside the set, nats.
        theorem_holds: Whether the set comes from one global greedy, as the a-priori theorem wants.
        curvature: Whether to compute the curvature too.
    """
    trace = picked.trace()
    rows = torch.from_numpy(trace.indices).to(problem.sketches.device)
    proof = guarantees(problem, trace, outside=outside, theorem_holds=theorem_holds, with_curvature=curvature)
    base = problem.base_gains()[rows].cpu().numpy()
    return Selection(
        indices=trace.indices,
        marginal_gains=trace.gains,
        # A gain equal to its base up to rounding may come out a hair above it.
        epsilons=np.minimum(trace.gains - base, 0.0),
        conflicts=trace.conflicts,
        log_det=np.cumsum(trace.gains),
        alpha=problem.alpha,
        stop_reason=stop,
        guarantees=proof,
        dropped=dropped,
    )
