"""The entry: from a matrix of sketches and a config to a selection with its guarantees."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.arithmetic import set_arithmetic
from workers.selection.baselines import at_random, by_norm
from workers.selection.bounds import fractional_knapsack, outside_bound
from workers.selection.certificate import guarantees
from workers.selection.config import ConfigError
from workers.selection.constraints import ConstraintError
from workers.selection.diagonal import diagonal_greedy, diagonal_top_k
from workers.selection.kernels import unit_rows
from workers.selection.lazy import Climb, lazy_greedy
from workers.selection.picked import Picked
from workers.selection.pool import Pool
from workers.selection.problem import Problem, posed_problem
from workers.selection.progress import Progress, Watch
from workers.selection.result import Selection, StopReason
from workers.selection.rules import Rules
from workers.selection.sketches import Sketches

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workers.selection.config import SelectionConfig
    from workers.selection.constraints import Constraints

#: Two log-dets whose difference is a smaller share of them are equal.
_ROUNDING = 1e-12


def select(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    config: SelectionConfig,
    constraints: Constraints | None = None,
    *,
    norms: NDArray[np.float64] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Selection:
    """Pick the most informative, least conflicting rows.

    Args:
        sketches: Gradient sketches, shape (n, p): numpy (memory-mapped or not) or torch, float16 to float64.
            Never copied whole and never written to.
        config: What to maximise and how far.
        constraints: What the picks have to keep to, by any method with the exact score.
        norms: What "grad_norm" ranks by, shape (n,), where the rows were made shorter since; None: their norms.
        on_progress: Called after each tile of rows and each pick.
        should_stop: Asked as often; once it says True the selection ends within one tile or one pick.

    Returns:
        The picks in order with gains in nats, conflicts, and what is proven about them.

    Raises:
        SketchShapeError: If `sketches` is not a float matrix (n, p) with n, p >= 1.
        ConfigError: If there is no such device, the rows are too small for alpha = "auto" (float64 alone), or a
            constraint has a value that it cannot have.
        InvalidRowsError: If rows hold NaN or inf.
        BudgetError: If the budget exceeds the rows that can be picked.
        ConstraintError: If no selection can meet the constraints, or this one met not all of them.
        SelectionCancelledError: If `should_stop` returned True.
    """
    set_arithmetic()
    watch = Watch(on_progress, should_stop)
    problem, usable = posed_problem(Sketches(sketches, config.device), config, watch, constraints)
    if config.climbs_objective:
        found = climb(problem, watch)
    else:
        order, stop = _order(problem, torch.nonzero(usable).flatten().cpu().numpy(), config, norms, watch)
        found = followed(problem, order, stop, watch)
    return report(problem, found, config, watch, theorem_holds=config.climbs_objective)


def select_in_order(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    order: NDArray[np.int64],
    config: SelectionConfig,
    constraints: Constraints | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Selection:
    """Pick rows in an order that was found elsewhere, as far as the budget and the constraints let them in.

    Args:
        sketches: As for `select`.
        order: Row numbers, the first to be picked first, shape (m,), int64.
        config: The budget, and the objective that the picks are measured by.
        constraints: As for `select`.
        on_progress: As for `select`.
        should_stop: As for `select`.

    Returns:
        The selection, measured and certified as any other.

    Raises:
        ValueError: What `select` raises.
    """
    set_arithmetic()
    watch = Watch(on_progress, should_stop)
    problem, usable = posed_problem(Sketches(sketches, config.device), config, watch, constraints)
    picks, stop = _allowed(problem, order[usable.cpu().numpy()[order]], watch)
    return report(problem, followed(problem, picks, stop, watch), config, watch, theorem_holds=False)


def climb(problem: Problem, watch: Watch) -> Climb:
    """The exact greedy; with a token budget the better of two: by score a token, and by score.

    Args:
        problem: What is being selected from.
        watch: The caller's callbacks.
    """
    constraints = problem.constraints
    if constraints is None or constraints.token_budget is None or constraints.tokens is None:
        return lazy_greedy(problem, watch)
    tokens = torch.from_numpy(constraints.tokens).to(problem.norms.device)
    by_token = lazy_greedy(replace(problem, scale=1.0 / tokens.double()), watch)
    if bool((tokens == tokens[0]).all()):
        return by_token
    reached, spare = by_token.picked.log_det, constraints.token_budget

    def is_behind(picked: Picked, pool: Pool) -> bool:
        left = spare - int(tokens[picked.rows].sum())
        return picked.log_det + fractional_knapsack(pool.gains(), tokens, left)[0] <= reached

    sources = constraints.sources
    if sources is not None and sources.lacking(by_token.picked.rows) is not None:
        return lazy_greedy(problem, watch)
    by_row = lazy_greedy(problem, watch, is_behind)
    better = by_row.picked.log_det > (1.0 + _ROUNDING) * reached
    return by_row if better and (sources is None or sources.lacking(by_row.picked.rows) is None) else by_token


def followed(problem: Problem, order: NDArray[np.int64], stop: StopReason, watch: Watch) -> Climb:
    """The set of given rows in their order, and all rows up to date with it.

    Args:
        problem: The rows.
        order: Row numbers.
        stop: Why they are no more.
        watch: The caller's callbacks.
    """
    picked, pool = Picked(problem), Pool(problem)
    pool.sweep(picked.add(order.tolist()), picked.mean)
    watch.step("picking", len(order), problem.budget)
    return Climb(picked, pool, stop)


def _allowed(problem: Problem, order: NDArray[np.int64], watch: Watch) -> tuple[NDArray[np.int64], StopReason]:
    """The rows that have to be in the set, then those of an order that the constraints let in beside those before."""
    include = np.empty(0, dtype=np.int64) if problem.constraints is None else problem.constraints.include
    rules, kept = Rules(problem), include.tolist()
    for row in kept:
        rules.take(row, problem.sketches.row(row))
    taken = set(kept)
    for row in order.tolist():
        if len(kept) == problem.budget:
            break
        if row in taken or not rules.open(np.array([row])).all():
            continue
        sketch = problem.sketches.row(row)
        if not rules.near(np.array([row]), sketch[None]).any():
            rules.take(row, sketch)
            kept.append(row)
            watch.step("picking", len(kept), problem.budget)
    return np.array(kept, dtype=np.int64), "budget" if len(kept) == problem.rows_budget else rules.ended()


def _order(
    problem: Problem,
    usable: NDArray[np.int64],
    config: SelectionConfig,
    norms: NDArray[np.float64] | None,
    watch: Watch,
) -> tuple[NDArray[np.int64], StopReason]:
    """The picks of a method that does not climb the objective, as row numbers."""
    bound = problem.constraints is not None
    count = problem.sketches.n if bound else problem.budget
    if config.method == "random":
        order = at_random(usable, count, config.seed)
    elif config.method == "grad_norm":
        lengths = problem.squared_norms if norms is None else torch.from_numpy(norms).to(problem.squared_norms.device)
        order = by_norm(torch.where(problem.eligible, lengths, 0.0), count)
    elif config.fisher != "exact":
        if bound:
            raise ConfigError(f"fisher is {config.fisher!r}, which keeps to no constraints; use the exact score")
        return diagonal_greedy(problem, watch) if config.fisher == "reference" else diagonal_top_k(problem)
    else:
        found = climb(unit_rows(problem), watch)
        return found.picked.trace().indices, found.stop
    if bound:
        return _allowed(problem, order, watch)
    return order, "budget" if len(order) == problem.budget else "exhausted"


def report(
    problem: Problem,
    found: Climb,
    config: SelectionConfig,
    watch: Watch,
    *,
    theorem_holds: bool,
) -> Selection:
    """The picks with everything that is proven about them.

    Args:
        problem: What was selected from.
        found: The set, and all rows up to date with it.
        config: The request.
        watch: The caller's callbacks.
        theorem_holds: Whether the set comes from one global greedy, as the a-priori theorem wants.

    Raises:
        ConstraintError: If the set has fewer rows of a source than it has to have.
    """
    picked, pool, stop = found
    trace, constraints = picked.trace(), problem.constraints
    if constraints is not None and constraints.sources is not None:
        lacking = constraints.sources.lacking(picked.rows)
        if lacking is not None:
            raise ConstraintError("sources", lacking, len(picked.rows), stop)
    outside = pool.bound_outside(picked, outside_bound(problem, picked, stop))
    watch.step("certifying", problem.sketches.n, problem.sketches.n)
    theorem_holds = theorem_holds and (constraints is None or not constraints.bind)
    proof = guarantees(problem, trace, outside=outside, theorem_holds=theorem_holds, with_curvature=config.curvature)
    rows = torch.from_numpy(trace.indices).to(problem.sketches.device)
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
    )
