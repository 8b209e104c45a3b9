"""The greedy loop: propose contenders, decide exactly, stop where asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from workers.selection.blas_threads import one_blas_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers.selection.progress import Watch
    from workers.selection.result import StopReason
    from workers.selection.state import GreedyState


#: A gain this close to where an early stop begins, as a share of it, is computed once more, on its own.
_CLOSE = 1e-9


class Proposer(Protocol):
    """Knows the row with the best score; plain, lazy and stochastic differ in nothing else."""

    def best(self) -> tuple[int, float] | None:
        """The row with the largest score (ties: the lowest index) and its gain; None when no row has any."""

    def take(self, row: int) -> None:
        """Take that row into the state, and learn what it does to the others."""


def greedy(state: GreedyState, proposer: Proposer, watch: Watch) -> StopReason:
    """Add the row with the largest score (ties: the lowest index) until the budget or an early stop.

    Args:
        state: The set so far, empty; holds the picks afterwards.
        proposer: Made for this state.
        watch: The caller's callbacks.

    Returns:
        Why it ended.

    Raises:
        SelectionCancelledError: If the caller stops it.
    """
    with one_blas_thread():
        return _until_the_end(state, proposer, watch)


def _until_the_end(state: GreedyState, proposer: Proposer, watch: Watch) -> StopReason:
    budget, ratio = state.problem.budget, state.problem.early_stop_ratio
    first_gain = 0.0
    while state.count < budget:
        best = proposer.best()
        if best is None:
            return "exhausted"
        row, gain = best
        if ratio is not None:
            if state.count == 0 or abs(gain - ratio * first_gain) <= _CLOSE * first_gain:
                gain = state.gain(row)
            if state.count > 0 and gain <= ratio * first_gain:
                return "early_stop"
            first_gain = first_gain or gain
        proposer.take(row)
        watch.step("picking", state.count, budget)
    return "budget"


def before_early_stop(gains: NDArray[np.float64], ratio: float | None) -> int:
    """How many picks of a sequence an early stop would have kept: it changes nothing before the stop.

    Args:
        gains: Marginal gains in the order of picking, shape (k,), nats.
        ratio: Omega in (0, 1], or None for no early stop.
    """
    if ratio is None or gains.size == 0:
        return len(gains)
    stops = np.flatnonzero(gains[1:] <= ratio * gains[0])
    return int(stops[0]) + 1 if stops.size else len(gains)
