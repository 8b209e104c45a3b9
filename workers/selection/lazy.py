"""The lazy greedy: exact picks from a small front of rows, the rest held off by upper bounds.

Gains only fall as the set grows, so a row's old gain bounds its score today; and its old conflict, less what
the mean can have turned since, bounds today's conflict from below. Rows are brought up to date many at a time,
by matrix-matrix products with the picks they have missed. Why the picks are those of the plain greedy:
docs/selection.md.
"""

from __future__ import annotations

import math
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

#: Rows of a tile of a sweep: it and its products stay in a processor's cache.
_ROWS_SWEPT = 1024

#: Bytes of a front to begin with, in float64: it is read once a pick, so it should stay in a processor's cache.
_FRONT_BYTES = 2**20

#: Rows of a front at least, however long they are.
_FRONT_ROWS = 64

#: Picks that a front should last: fewer waste the work of building it, more the work of carrying it.
_LASTING = (24, 96)

#: When rows are brought up to date for a front, so are those with the next largest bounds, up to this many
#: times its size: they would be asked for next, and large products are the cheap ones.
_REACH = 4

#: What work costs, in inner products of a row that is read in order: a product of a row fetched by its number, the
#: fetching of a row as so many of those, and the reading of a row in order.
_DEAR, _FETCH, _READ = 4, 16, 8

#: Gains known to within this many nats are good enough for a certificate.
_VAGUE = 1e-4

#: Rows whose numbers of missed picks have logarithms this close share a matrix product.
_ALIKE = 0.5


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
        self._smallest = max(_FRONT_ROWS, _FRONT_BYTES // (8 * sketches.p))
        self._size = self._smallest
        self._allowance = 0.0
        self._chosen = -1
        self._spent = 0
        self._swept = 0
        self._front = self._build(None)

    def best(self) -> tuple[int, float] | None:
        """The row with the largest score and its gain; None when no row has anything to give."""
        while True:
            if len(self._front.rows) > len(self._front.picked):
                at = self._front.best(self._fall())
                if at is not None:
                    self._chosen = at
                    return int(self._front.rows[at]), self._front.gain(at)
            elif self._front.outside.gain == -math.inf:
                return None
            self._dissolve()
            self._front = self._build(self._front)

    def take(self, row: int) -> None:  # noqa: ARG002 - the front remembers where it is
        """Bring the front up to date with the row just found; the others catch up when they are needed."""
        self._front.take(self._chosen)

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

    def _build(self, last: Front | None) -> Front:
        """The rows with the largest score bounds, all of them up to date."""
        self._history.remember(self._state.count)
        bounds = self._score_bounds(slice(None))
        size = min(self._size, bounds.numel())
        reach = min(_REACH * size, bounds.numel())
        while True:
            top = bounds.topk(size, sorted=False)
            stale = (self._seen[top.indices] < self._state.count) & (top.values > -torch.inf)
            if not bool(stale.any()):
                break
            wide = bounds.topk(reach, sorted=False)
            rows = wide.indices[(self._seen[wide.indices] < self._state.count) & (wide.values > -torch.inf)]
            if self._is_sweep_due(rows):
                self._sweep()
                bounds = self._score_bounds(slice(None))
            else:
                self._catch_up(rows)
                bounds[rows] = self._score_bounds(rows)
        rows = top.indices[top.values > -torch.inf].sort().values
        bounds[rows] = -torch.inf
        gains = self._gains.clone()
        gains[rows] = -torch.inf
        return Front(self._state, rows, Outside(float(gains.max()), float(bounds.max()), self._allowance), last)

    def _score_bounds(self, rows: Tensor | slice) -> Tensor:
        """Upper bounds on the scores of rows while the mean turns no further than allowed, nats."""
        if self._penalty == 0:
            return self._gains[rows].clone()
        floor = self._history.floor(self._conflicts[rows], self._visited[rows])
        return self._gains[rows] - self._penalty * (floor - self._allowance).clamp_min_(0.0)

    def _catch_up(self, rows: Tensor) -> None:
        """Show rows the picks that they have missed, and today's mean."""
        rows = rows.sort().values
        missed = self._state.count - self._seen[rows]
        far = missed > self._state.whitener.cost
        for part in torch.split(rows[far], _ROWS_AT_ONCE):
            if part.numel():
                self._whiten(part)
        near = rows[~far]
        if near.numel():
            near = near[self._seen[near].argsort(stable=True)]
            for part in self._alike(near):
                self._show(part)

    def _is_sweep_due(self, rows: Tensor) -> bool:
        """Whether catching up row by row has cost, with these rows, as much as bringing all rows up to date at once.

        So at most twice the work is done that would have been with the right choice, whichever it is.
        """
        missed = int((self._state.count - self._seen[rows]).sum())
        self._spent += _DEAR * (missed + _FETCH * rows.numel())
        return self._spent > (self._state.count - self._swept + _READ) * self._seen.numel()

    def _sweep(self) -> None:
        """Bring all rows up to date, in order."""
        sketches, count = self._state.problem.sketches, self._state.count
        whitener, directions = self._state.whitener, self._state.directions.since(self._swept)
        anew = len(directions) > whitener.cost
        numbers = torch.arange(self._swept, count, device=self._seen.device).unsqueeze(1)
        mixed = bool(((self._seen > self._swept) & (self._seen < count)).any())
        for where, tile in sketches.tiles(rows=_ROWS_SWEPT):
            if anew:
                self._residuals.anchor(where, _squared_norms(whitener.whiten(tile)))
            else:
                products = directions @ tile.T
                seen = self._seen[where]
                if mixed:
                    products.masked_fill_(numbers < seen, 0.0)
                drops = products.square_().sum(dim=0, dtype=torch.float64).masked_fill_(seen == count, 0.0)
                self._residuals.fall(drops, where)
            if self._penalty > 0:
                self._conflicts[where] = self._state.direction.conflicts(tile, self._state.norms[where])
        self._gains = torch.where(self._gains > -torch.inf, self._residuals.upper(), -torch.inf)
        self._seen.fill_(count)
        self._visited.fill_(self._history.latest)
        self._swept, self._spent = count, 0

    def _alike(self, rows: Tensor) -> Iterator[Tensor]:
        """Cut rows, sorted by what they have seen, into parts that have missed nearly the same picks."""
        missed = self._state.count - self._seen[rows]
        kinds = torch.log(missed.double()).div_(_ALIKE).floor_()
        for kind in torch.split(rows, torch.unique_consecutive(kinds, return_counts=True)[1].tolist()):
            yield from torch.split(kind, _ROWS_AT_ONCE)

    def _whiten(self, rows: Tensor) -> None:
        """Bring some rows up to date from nothing: cheaper than showing them the picks if they have missed many."""
        sketches = self._state.problem.sketches.gather(rows, self._dtype)
        white = self._state.whitener.whiten(sketches)
        self._residuals.anchor(rows, _squared_norms(white))
        self._freshen(rows, sketches)

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
        self._residuals.fall(_squared_norms(products), rows)
        self._freshen(rows, sketches)

    def _freshen(self, rows: Tensor, sketches: Tensor) -> None:
        """Learn gains and conflicts of rows whose residuals are those of today."""
        if self._penalty > 0:
            self._conflicts[rows] = self._state.direction.conflicts(sketches, self._state.norms[rows])
        self._gains[rows] = self._residuals.upper(rows)
        self._seen[rows] = self._state.count
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
        rows = torch.from_numpy(front.rows).to(self._gains.device)
        residuals, error, conflicts = front.known()
        self._residuals.anchor(rows, residuals, error)
        self._gains[rows] = self._residuals.upper(rows)
        self._gains[front.picked] = -torch.inf
        self._conflicts[rows] = conflicts
        self._seen[rows] = self._state.count
        self._history.remember(self._state.count)
        self._visited[rows] = self._history.latest


def _squared_norms(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return lengths.double().square_()
