"""The lazy greedy: exact picks from a small front of rows, the rest held off by upper bounds.

Gains only fall as the set grows, so a row's old gain bounds its score today; and its old conflict, less what
the mean can have turned since, bounds today's conflict from below. Rows are brought up to date many at a time,
by matrix-matrix products with the picks they have missed. Why the picks are those of the plain greedy:
docs/selection.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from workers.selection.conflict import COSINE_EPSILONS
from workers.selection.front import Front, Outside
from workers.selection.mean_history import MeanHistory
from workers.selection.residuals import Residuals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from workers.selection.state import GreedyState

#: Rows brought up to date in one matrix-matrix product.
_ROWS_AT_ONCE = 2048

#: Bytes of a front to begin with: it is read once a pick, so it should stay in a processor's cache.
_FRONT_BYTES = 2**20

#: Rows of a front at least, however long they are.
_FRONT_ROWS = 64

#: Picks that a front should last: fewer waste the work of building it, more the work of carrying it.
_LASTING = (24, 96)

#: When rows are brought up to date for a front, so are those with the next largest bounds, up to this many
#: times its size: they would be asked for next, and large products are the cheap ones.
_REACH = 4


#: Gains known to within this many nats are good enough for a certificate.
_VAGUE = 1e-4

#: Rows whose numbers of missed picks have logarithms this close share a matrix product.
_ALIKE = 0.2


class LazyProposer:
    """Keeps the rows that can win soon in a front that is always up to date, and bounds all others.

    For each row outside the front it knows the residual after the picks seen so far (an upper bound on today's)
    and the conflict with the mean at its last visit.
    """

    def __init__(self, state: GreedyState) -> None:
        """Start from the state's set, which must be empty.

        Args:
            state: The shared state of the greedy.
        """
        problem = state.problem
        sketches = problem.sketches
        self._state = state
        self._penalty = problem.penalty
        self._residuals = Residuals.at_start(problem)
        self._gains = torch.where(problem.eligible, self._residuals.upper(), -torch.inf)
        self._conflicts = torch.zeros_like(state.norms)
        self._seen = torch.zeros(sketches.n, dtype=torch.int64, device=sketches.device)
        self._visited = torch.zeros_like(self._seen)
        self._dtype = sketches.dtype
        self._history = MeanHistory(state.direction, COSINE_EPSILONS * torch.finfo(sketches.dtype).eps)
        self._smallest = max(_FRONT_ROWS, _FRONT_BYTES // (sketches.p * sketches.dtype.itemsize))
        self._size = self._smallest
        self._allowance = 0.0
        self._front = self._build()

    def contenders(self) -> Tensor:
        """Rows that may have the largest score, ascending; empty when no row has anything to give."""
        while (found := self._front.contenders(self._fall())) is None:
            self._dissolve()
            self._front = self._build()
        return found

    def examined(self, rows: Tensor, residuals: Tensor) -> None:  # noqa: ARG002 - the front remembers them
        """Learn the exact residuals of the last contenders."""
        self._front.anchor(residuals)

    def picked(self, row: int, direction: Tensor) -> None:
        """Bring the front up to date with a pick; the others catch up when they are needed.

        Args:
            row: The pick.
            direction: u, shape (p,), bulk precision.
        """
        self._front.advance(row, direction, self._state.direction.unit if self._penalty > 0 else None)

    def largest_gains(self, count: int) -> float:
        """Upper bound on the sum of the largest gains of rows not picked, nats; off by rounding alone.

        Args:
            count: How many.
        """
        self._dissolve()
        count = min(count, self._gains.numel())
        exact = torch.zeros_like(self._gains, dtype=torch.bool)
        while True:
            top = self._gains.topk(count)
            rows = top.indices[top.values > -torch.inf]
            stale = rows[self._seen[rows] < self._state.count]
            vague = rows[(self._gains[rows] - self._residuals.lower(rows) > _VAGUE) & ~exact[rows]]
            if stale.numel():
                self._catch_up(stale)
            elif vague.numel():
                self._gains[vague] = self._state.upper_gains(vague)
                exact[vague] = True
            else:
                return float(top.values.clamp_min(0.0).sum())

    def _fall(self) -> float:
        return self._history.fall() if self._penalty > 0 else 0.0

    def _build(self) -> Front:
        """The rows with the largest score bounds, all of them up to date."""
        self._history.remember(self._state.count)
        bounds = self._score_bounds(slice(None))
        size = min(self._size, bounds.numel())
        while True:
            top = bounds.topk(min(_REACH * size, bounds.numel()))
            stale = (self._seen[top.indices] < self._state.count) & (top.values > -torch.inf)
            if not bool(stale[:size].any()):
                break
            rows = top.indices[stale]
            self._catch_up(rows)
            bounds[rows] = self._score_bounds(rows)
        rows = top.indices[:size][top.values[:size] > -torch.inf].sort().values
        bounds[rows] = -torch.inf
        gains = self._gains.clone()
        gains[rows] = -torch.inf
        outside = Outside(float(gains.max()), float(bounds.max()), self._allowance)
        return Front(self._state, self._residuals, rows, self._conflicts[rows], outside)

    def _score_bounds(self, rows: Tensor | slice) -> Tensor:
        """Upper bounds on the scores of rows while the mean turns no further than allowed, nats."""
        if self._penalty == 0:
            return self._gains[rows].clone()
        floor = self._history.floor(self._conflicts[rows], self._visited[rows])
        return self._gains[rows] - self._penalty * (floor - self._allowance).clamp_min_(0.0)

    def _catch_up(self, rows: Tensor) -> None:
        """Show rows the picks that they have missed, and today's mean."""
        rows = rows.sort().values
        rows = rows[self._seen[rows].argsort(stable=True)]
        for part in self._alike(rows):
            self._show(part)

    def _alike(self, rows: Tensor) -> Iterator[Tensor]:
        """Cut rows, sorted by what they have seen, into parts that have missed nearly the same picks."""
        missed = self._state.count - self._seen[rows]
        kinds = torch.log(missed.double()).div_(_ALIKE).floor_()
        for kind in torch.split(rows, torch.unique_consecutive(kinds, return_counts=True)[1].tolist()):
            yield from torch.split(kind, _ROWS_AT_ONCE)

    def _show(self, rows: Tensor) -> None:
        """Bring some rows, sorted by what they have seen, up to date by one matrix product.

        Args:
            rows: Row numbers, shape (m,).
        """
        sketches = self._state.problem.sketches.gather(rows, self._dtype)
        seen, count = self._seen[rows], self._state.count
        first, last = int(seen[0]), int(seen[-1])
        products = sketches @ self._state.directions.since(first).T
        if last > first:
            known = torch.arange(first, count, device=seen.device) < seen.unsqueeze(1)
            products.masked_fill_(known, 0.0)
        self._residuals.fall(torch.linalg.vector_norm(products, dim=1).square_(), rows)
        if self._penalty > 0:
            self._conflicts[rows] = self._state.direction.conflicts(sketches, self._state.norms[rows])
        self._gains[rows] = self._residuals.upper(rows)
        self._seen[rows] = count
        self._visited[rows] = self._history.latest

    def _dissolve(self) -> None:
        """Write what the front knows back to all rows, and learn from how long it lasted."""
        front, age = self._front, len(self._front.picked)
        if age == 0 or age < _LASTING[0]:
            # At age 0 rows outside tie with the best one inside to rounding: only a wider front can tell.
            self._size = min(2 * self._size, self._gains.numel())
        elif age > _LASTING[1]:
            self._size = max(self._size // 2, self._smallest)
        if age:
            self._allowance = min(1.0, self._fall() * _LASTING[1] / age)
        front.give_back(self._residuals)
        self._gains[front.rows] = self._residuals.upper(front.rows)
        self._gains[front.picked] = -torch.inf
        self._conflicts[front.rows] = front.conflicts
        self._seen[front.rows] = self._state.count
        self._history.remember(self._state.count)
        self._visited[front.rows] = self._history.latest
