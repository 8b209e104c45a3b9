"""The entry: from a matrix of sketches and a config to a selection with its guarantees."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.baselines import at_random, by_norm
from workers.selection.config import ConfigError, SelectionConfig
from workers.selection.diagonal import diagonal_greedy
from workers.selection.full_float32 import full_float32
from workers.selection.greedy import Proposer, greedy
from workers.selection.guarantees import guarantees, outside_gain_sum
from workers.selection.kernels import unit_rows
from workers.selection.lazy import LazyProposer
from workers.selection.plain import PlainProposer
from workers.selection.problem import Problem, pose
from workers.selection.progress import Progress, Watch
from workers.selection.result import Dropped, Selection, StopReason
from workers.selection.sketches import Sketches
from workers.selection.state import GreedyState
from workers.selection.stochastic import StochasticProposer
from workers.selection.windows import cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@full_float32()
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
    watch = Watch(on_progress, should_stop)
    problem, usable, dropped = pose(Sketches(sketches, config.device), config, watch)
    state = GreedyState(problem)
    if config.pool_size is None and _climbs_objective(config):
        proposer = proposer_for(state, config)
        stop = greedy(state, proposer, watch)
    else:
        proposer = None
        stop = _follow(state, torch.nonzero(usable).flatten().cpu().numpy(), config, watch)
    if isinstance(proposer, LazyProposer):
        outside = proposer.largest_gains(state.count)
        watch.step("certifying", problem.sketches.n, problem.sketches.n)
    else:
        outside = outside_gain_sum(state, watch)
    theorem_holds = _climbs_objective(config) and config.pool_size is None and config.optimizer != "stochastic"
    return report(state, dropped, stop, outside=outside, theorem_holds=theorem_holds, curvature=config.curvature)


def _follow(state: GreedyState, usable: NDArray[np.int64], config: SelectionConfig, watch: Watch) -> StopReason:
    """Fill the state with the picks of a method that does not climb the objective over the whole pool."""
    problem = state.problem
    if config.pool_size is None:
        order, stop = _order(problem, usable, config, watch)
    else:
        order, stop = _order_by_windows(problem, usable, config, watch)
    for row in order.tolist():
        state.take(row)
        watch.step("picking", state.count, problem.budget)
    return stop


def _climbs_objective(config: SelectionConfig) -> bool:
    return config.method in {"spice", "fisher"} and config.fisher == "exact"


def _order(
    problem: Problem, usable: NDArray[np.int64], config: SelectionConfig, watch: Watch
) -> tuple[NDArray[np.int64], StopReason]:
    """The method's picks out of one pool, as row numbers."""
    if config.method == "random":
        return at_random(usable, problem.budget, config.seed), "budget"
    if config.method == "grad_norm":
        order = by_norm(problem.squared_norms, problem.budget)
        return order, "budget" if len(order) == problem.budget else "exhausted"
    if config.fisher == "reference":
        return diagonal_greedy(problem, watch)
    own = GreedyState(unit_rows(problem) if config.method == "dpp" else problem)
    stop = greedy(own, proposer_for(own, config), watch)
    return own.trace().indices, stop


def _order_by_windows(
    problem: Problem, usable: NDArray[np.int64], config: SelectionConfig, watch: Watch
) -> tuple[NDArray[np.int64], StopReason]:
    """The picks of all windows, one window after the other."""
    if config.pool_size is None:
        raise ConfigError("windows need a pool_size")
    parts: list[NDArray[np.int64]] = []
    stops: set[StopReason] = set()
    windows = cut(usable, config.pool_size, config.pool_picks, problem.budget, config.seed)
    for number, window in enumerate(windows):
        rows = torch.from_numpy(window.rows).to(problem.sketches.device)
        pool = replace(
            problem,
            sketches=problem.sketches.subset(rows),
            squared_norms=problem.squared_norms[rows],
            eligible=problem.eligible[rows],
            budget=window.picks,
        )
        # Windows draw apart from each other, or every window would pick the same positions.
        inner = replace(config, seed=config.seed + number, budget=window.picks)
        order, stop = _order(pool, np.arange(len(window.rows)), inner, Watch(None, watch.should_stop))
        parts.append(window.rows[order])
        stops.add(stop)
    order = np.concatenate(parts)
    met = len(order) == problem.budget
    return order, "budget" if met else "early_stop" if "early_stop" in stops else "exhausted"


def proposer_for(state: GreedyState, config: SelectionConfig) -> Proposer:
    """The proposer that the config asks for.

    Args:
        state: The state that it will propose for, empty.
        config: The request.
    """
    if config.optimizer == "stochastic":
        return StochasticProposer(state, config.stochastic_epsilon, config.seed)
    if config.optimizer == "plain":
        return PlainProposer(state)
    return LazyProposer(state)


def report(
    state: GreedyState, dropped: Dropped, stop: StopReason, *, outside: float, theorem_holds: bool, curvature: bool
) -> Selection:
    """The picks with everything that is proven about them.

    Args:
        state: The set, filled.
        dropped: Rows left out before.
        stop: Why the picking ended.
        outside: Sum of the largest gains outside the set, nats.
        theorem_holds: Whether the set comes from one global greedy, as the a-priori theorem wants.
        curvature: Whether to compute the curvature too.
    """
    problem, trace = state.problem, state.trace()
    picked = torch.from_numpy(trace.indices).to(problem.sketches.device)
    proof = guarantees(problem, trace, outside=outside, theorem_holds=theorem_holds, with_curvature=curvature)
    base = problem.base_gains()[picked].cpu().numpy()
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
