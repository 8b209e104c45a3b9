"""Which rows may still be picked. A row that may not be picked now may not be picked later: each rule only closes rows.

A set is allowed if it is part of a full selection that meets the constraints. So if S + x is allowed then T + x is for
every part T of S, and the lazy greedy closes a row for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workers.selection.constraints import Constraints
from workers.selection.picked import Picked
from workers.selection.pool import Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers.selection.constraints import Sources
    from workers.selection.problem import Problem
    from workers.selection.result import StopReason

_EPS32 = float(np.finfo(np.float32).eps)


def started(problem: Problem) -> tuple[Picked, Pool, Rules]:
    """The set of the rows that have to be in it, all rows up to date with it, and what may be added."""
    picked, pool, rules = Picked(problem), Pool(problem), Rules(problem)
    include = [] if problem.constraints is None else problem.constraints.include.tolist()
    if include:
        pool.sweep(picked.add(include), picked.mean)
        pool.close(np.array(include))
        for row in include:
            rules.take(row, problem.sketches.row(row))
    return picked, pool, rules


class Rules:
    """The constraints of a problem during one greedy."""

    def __init__(self, problem: Problem) -> None:
        """Start from the empty set."""
        constraints, budget, p = problem.constraints or Constraints(), problem.budget, problem.sketches.p
        eligible = problem.eligible.cpu().numpy()
        self._budget, self._left = budget, eligible.copy()
        self._tokens = constraints.tokens
        self._tokens_left = constraints.token_budget
        self._quotas = None if constraints.sources is None else _Quotas(constraints.sources, budget)
        self._reserve: _Reserve | None = None
        if self._quotas is not None and self._tokens is not None and self._tokens_left is not None:
            self._reserve = _Reserve(self._quotas, self._tokens, eligible)
        self._cosine, self._others = constraints.near_cosine, constraints.near_rows
        p = p if self._others is None else self._others.shape[1]
        self._units = np.empty((0 if self._cosine is None else min(budget, 64), p))
        self._narrow = np.empty(self._units.shape, dtype=np.float32)
        self._count = 0
        self._all = np.arange(problem.sketches.n)

    def close(self, pool: Pool) -> None:
        """Take out of the competition all rows that tokens and sources forbid beside the set."""
        if self._quotas is not None or self._tokens_left is not None:
            pool.close(~self.open(self._all))

    def forbid(
        self, rows: NDArray[np.int64], sketches: NDArray[Any], entered: NDArray[np.bool_] | None = None
    ) -> NDArray[np.bool_] | bool:
        """Which of a front's rows are forbidden beside the set; False for none.

        Args:
            rows: Row numbers, shape (m,).
            sketches: Theirs, shape (m, p).
            entered: Which rows are held against the whole set for the first time, shape (m,); None to hold all against
                the latest row of the set alone.
        """
        forbidden = False if self._quotas is None and self._tokens_left is None else ~self.open(rows)
        if self._cosine is None or self._count == 0:
            return forbidden
        near = np.zeros(len(rows), dtype=bool)
        if entered is None:
            near = self.near(rows, sketches, latest=1)
        else:
            near[entered] = self.near(rows[entered], sketches[entered])
        return near | forbidden

    def ended(self) -> StopReason:
        """Why no row is left to pick: the token budget is spent or too small for one of them, or does not matter."""
        if self._tokens is None or self._tokens_left is None:
            return "exhausted"
        too_long = self._left & (self._tokens > self._tokens_left)
        return "budget" if self._tokens_left == 0 or too_long.any() else "exhausted"

    def take(self, row: int, sketch: NDArray[np.float64]) -> None:
        """Take a row, with its sketch of shape (p,), into account."""
        self._left[row] = False
        if self._tokens is not None and self._tokens_left is not None:
            self._tokens_left -= int(self._tokens[row])
        if self._quotas is not None:
            source = self._quotas.take(row)
            if self._reserve is not None:
                self._reserve.take(source, row)
        if self._cosine is not None:
            if self._count == len(self._units):
                self._units = np.concatenate([self._units, np.empty_like(self._units)])
                self._narrow = np.concatenate([self._narrow, np.empty_like(self._narrow)])
            self._units[self._count] = _unit(sketch[None] if self._others is None else self._others[[row]])[0]
            self._narrow[self._count] = self._units[self._count]
        self._count += 1

    def open(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some rows, shape (m,), tokens and sources allow beside the set."""
        allowed = np.ones(len(rows), dtype=bool)
        if self._quotas is not None:
            allowed &= self._quotas.open(rows)
        if self._tokens is not None and self._tokens_left is not None:
            left: NDArray[np.int64] | int = self._tokens_left
            if self._reserve is not None and self._quotas is not None:
                left = self._tokens_left - self._reserve.needed + self._reserve.own[self._quotas.of_row[rows]]
            allowed &= self._tokens[rows] <= left
        return allowed

    def near(self, rows: NDArray[np.int64], sketches: NDArray[Any], latest: int | None = None) -> NDArray[np.bool_]:
        """Which of some rows are near-duplicates of a row of the set.

        Cosines are computed in float32 and, where that leaves it open, in float64; within 1e-12 of the limit they count
        as equal to it.

        Args:
            rows: Row numbers, shape (m,).
            sketches: Theirs, shape (m, p).
            latest: Look at so many of the latest rows of the set alone; None for all.
        """
        if self._cosine is None or self._count == 0 or len(sketches) == 0:
            return np.zeros(len(sketches), dtype=bool)
        if self._others is not None:
            sketches = self._others[rows]
        since = 0 if latest is None else self._count - latest
        narrow = sketches if sketches.dtype == np.float32 else _unit(sketches).astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", narrow, narrow))
        products = narrow @ self._narrow[since : self._count].T
        largest = products.max(axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)
        near: NDArray[np.bool_] = largest >= self._cosine
        unsure = np.flatnonzero(np.abs(largest - self._cosine) <= 8 * _EPS32 * np.sqrt(sketches.shape[1]))
        if len(unsure):
            cosines = _unit(sketches[unsure]) @ self._units[since : self._count].T
            near[unsure] = cosines.max(axis=1) >= self._cosine - 1e-12
        return near


class _Quotas:
    """Rows of each source. S + x is allowed if at most k rows are needed for it and what is missing of each source.

    These sets form a matroid: a truncated partition matroid with places kept for the sources' fewest rows.
    """

    def __init__(self, sources: Sources, budget: int) -> None:
        self.of_row, self._most = sources.of_row, sources.most
        self.missing = sources.least.copy()
        self._held = np.zeros_like(sources.least)
        self._free = budget - int(sources.least.sum())

    def take(self, row: int) -> int:
        source = int(self.of_row[row])
        self._held[source] += 1
        if self.missing[source] > 0:
            self.missing[source] -= 1
        else:
            self._free -= 1
        return source

    def open(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        open_ = (self._held < self._most) & ((self.missing > 0) | (self._free > 0))
        allowed: NDArray[np.bool_] = open_[self.of_row[rows]]
        return allowed


class _Reserve:
    """Tokens that the missing rows of all sources need at least: those of the shortest rows left.

    Attributes:
        needed: Their sum.
        own: The longest of these rows in each source, shape (g,): a row of that source takes its place.
    """

    def __init__(self, quotas: _Quotas, tokens: NDArray[np.int64], eligible: NDArray[np.bool_]) -> None:
        self._missing = quotas.missing
        self._tokens = tokens
        self._rows = []
        for source in range(len(quotas.missing)):
            mine = np.flatnonzero(eligible & (quotas.of_row == source))
            self._rows.append(mine[np.argsort(tokens[mine], kind="stable")])
        self._sums = np.zeros_like(quotas.missing)
        self.own = np.zeros_like(quotas.missing)
        for source in range(len(quotas.missing)):
            self._look(source)

    @property
    def needed(self) -> int:
        return int(self._sums.sum())

    def take(self, source: int, row: int) -> None:
        self._rows[source] = self._rows[source][self._rows[source] != row]
        self._look(source)

    def _look(self, source: int) -> None:
        shortest = self._tokens[self._rows[source][: self._missing[source]]]
        self._sums[source] = shortest.sum()
        self.own[source] = shortest[-1] if len(shortest) else 0


def _unit(rows: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-300)
    return unit
