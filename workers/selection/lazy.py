"""The lazy greedy: exact picks from a small front of rows, the rest held off by upper bounds.

Gains only fall as the set grows, so a row's old gain bounds its score today; and its old conflict, less what the mean
can have turned since, bounds today's conflict from below. When the front's best no longer beats the bound on the rest,
all rows are brought up to date by one matrix product. Why the picks are those of the plain greedy:
docs/selection-proofs.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from workers.selection.front import Front
from workers.selection.rules import Rules, started
from workers.selection.whitening import BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.selection.picked import Picked
    from workers.selection.pool import Outside, Pool
    from workers.selection.problem import Problem
    from workers.selection.progress import Watch
    from workers.selection.result import StopReason
    from workers.selection.whitening import Steps

#: Bytes of a front to begin with, in float64: it is read once a pick, so it should stay in a processor's cache.
_FRONT_BYTES = 2**20
_FRONT_ROWS = 64  # at least, however long they are

#: Picks that a front should last: fewer waste the work of building it, more the work of carrying it.
_LASTING = (24, 96)

#: A front whose rows times its picks are more than so many times all rows is dearer than the sweep that it spares.
_CARRIED = 2

#: A gain this close to where an early stop begins, as a share of it, is computed exactly.
_CLOSE = 1e-9


class Climb(NamedTuple):
    """The set that the greedy picked, all rows up to date with it, and why it ended."""

    picked: Picked
    pool: Pool
    stop: StopReason


def lazy_greedy(problem: Problem, watch: Watch, abandon: Callable[[Picked, Pool], bool] = lambda *_: False) -> Climb:
    """Add the row with the largest score (ties by `Problem.widths`: the first) until the budget or an early stop.

    Args:
        problem: What is being selected from.
        watch: The caller's callbacks.
        abandon: Asked after each sweep whether what comes is of no use any more: the set ends there.

    Raises:
        SelectionCancelledError: If the caller stops it.
    """
    picked, pool, rules = started(problem)
    size = smallest = max(_FRONT_ROWS, _FRONT_BYTES // (8 * problem.sketches.p))
    steps: Steps = ()
    front, allowance = None, 0.0
    stop: StopReason | None = None
    if not picked.rows:
        rules.close(pool)
        _pick_first(problem, picked, pool, rules, watch)
    while stop is None:
        if len(picked.rows) == problem.budget:
            return Climb(picked, pool, rules.ended() if problem.rows_budget is None else "budget")
        rules.close(pool)
        rows, outside = pool.leaders(size, allowance)
        if len(rows) == 0 or abandon(picked, pool):
            return Climb(picked, pool, rules.ended())
        front = Front(problem, rows, picked.whitener, front, steps)
        stop = _pick(problem, front, outside, picked, rules, watch)
        lasted, steps = len(front.picked), ()
        if lasted:
            allowance = min(1.0, picked.mean.fall_since(outside.total) * _LASTING[1] / lasted)
            absorbed = picked.absorb()
            pool.sweep(absorbed.directions, picked.mean)
            steps = absorbed.steps
        pool.anchor(front.rows, front.residuals, front.errors)
        pool.close(front.rows[front.closed])
        size = max(smallest, _next_size(size, int(front.closed.sum()), problem.sketches.n))
    return Climb(picked, pool, stop)


def _pick_first(problem: Problem, picked: Picked, pool: Pool, rules: Rules, watch: Watch) -> None:
    """Pick into the empty set, where rows of one length all tie: a front would have to hold every row."""
    row = pool.first()
    if row is None:
        return
    pool.sweep(picked.add([row]), picked.mean)
    pool.close(np.array([row]))
    rules.take(row, problem.sketches.row(row))
    picked.first_gain = float(problem.base_gains()[row])
    watch.step("picking", 1, problem.budget)


def _next_size(size: int, lasted: int, n: int) -> int:
    """Rows of the next front of n, from those of the last and the picks that it lasted."""
    # A front that lasted no pick has its best row tied with rows outside: only a wider one can tell.
    if lasted == 0 or (lasted < _LASTING[0] and lasted * size < n):
        return min(2 * size, n)
    return size // 2 if lasted > _LASTING[1] or lasted * size > _CARRIED * n else size


def _pick(
    problem: Problem, front: Front, outside: Outside, picked: Picked, rules: Rules, watch: Watch
) -> StopReason | None:
    """Pick from a front as long as no row outside can win and the budget lasts; "early_stop" where gains end it."""
    front.turn(picked.mean)
    front.closed |= rules.forbid(front.rows, front.sketches, front.entered)
    while len(front.picked) < BLOCK and len(picked.rows) < problem.budget:
        at = front.best(picked.mean, outside.bound(picked.mean))
        if at is None:
            return None
        if picked.first_gain is None:
            picked.first_gain = front.gain(at, exact=True)
        elif problem.early_stop_ratio is not None:
            limit = problem.early_stop_ratio * picked.first_gain
            close = abs(front.gain(at) - limit) <= _CLOSE * picked.first_gain
            if front.gain(at, exact=close) <= limit:
                return "early_stop"
        row, sketch = int(front.rows[at]), front.sketches[at].astype(np.float64)
        picked.take(row, sketch)
        rules.take(row, sketch)
        front.take(at, picked.mean)
        front.closed |= rules.forbid(front.rows, front.sketches)
        watch.step("picking", len(picked.rows), problem.budget)
    return None
