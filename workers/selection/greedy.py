"""The greedy loop: propose contenders, decide exactly, stop where asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.progress import Watch
    from workers.selection.result import StopReason
    from workers.selection.state import GreedyState


class Proposer(Protocol):
    """Knows which rows may have the best score; plain, lazy and stochastic differ in nothing else."""

    def contenders(self) -> Tensor:
        """Rows among which the best one is, ascending, int64; empty when no row has a positive gain."""

    def examined(self, rows: Tensor, residuals: Tensor) -> None:
        """Hear the exact residuals of rows that were decided between."""

    def picked(self, row: int, direction: Tensor) -> None:
        """Hear which row was picked, and the direction u in which residuals fall by (u . z)^2."""


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
    problem = state.problem
    first_gain = 0.0
    while state.count < problem.budget:
        rows = proposer.contenders()
        if rows.numel() == 0:
            return "exhausted"
        row = _decide(state, proposer, rows)
        if problem.early_stop_ratio is not None:
            gain = state.gain(row)
            if state.count > 0 and gain <= problem.early_stop_ratio * first_gain:
                return "early_stop"
            first_gain = first_gain or gain
        proposer.picked(row, state.add(row))
        watch.step("picking", state.count, problem.budget)
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


def _decide(state: GreedyState, proposer: Proposer, rows: Tensor) -> int:
    if rows.numel() == 1:
        return int(rows)
    row, residuals = state.decide(rows)
    proposer.examined(rows, residuals)
    return row
