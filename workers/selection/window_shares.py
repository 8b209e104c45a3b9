"""Shares of picks that are made window by window: what each window may add for the shares to hold of all in the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from workers.selection.constraints import ConstraintError, Sources
from workers.selection.shares import DECIMALS, Shares, select_in_shares

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workers.selection.result import Selection


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """How far windows have come.

    Attributes:
        held: Picks of each source in the windows before, shape (g,), int64.
        later: Rows of each source that have to be picked in windows after this one, shape (g,), int64.
        planned: Picks of all windows, unless something ends one early.
        last: Whether no window comes after this one.
    """

    held: NDArray[np.int64]
    later: NDArray[np.int64]
    planned: int
    last: bool


@dataclass(frozen=True, slots=True, eq=False)
class WindowShares(Shares):
    """The shares of all picks, over the m rows of the window whose turn it is.

    Attributes:
        held: Picks of each source in the windows before, shape (g,), int64.
        due: The fewest rows of each source in the end, as a share of the picks that there are to be then, shape (g,).
        there: Rows of each source that may be picked in this window, shape (g,), int64.
        included: Of these, rows that have to be, shape (g,), int64.
        left: Most rows of each source from here to the end, less those that have to be picked later, shape (g,).
        last: Whether no window comes after it.
    """

    held: NDArray[np.int64]
    due: NDArray[np.float64]
    there: NDArray[np.int64]
    included: NDArray[np.int64]
    left: NDArray[np.int64]
    last: bool

    @classmethod
    def of_window(
        cls,
        shares: Shares,
        course: Course,
        rows: NDArray[np.int64],
        eligible: NDArray[np.bool_],
        include: NDArray[np.int64],
    ) -> Self:
        """Those of one window.

        Args:
            shares: Of all picks, over all rows.
            course: How far the windows have come.
            rows: Row numbers of the window, shape (m,).
            eligible: Which rows of the window may be picked, shape (m,).
            include: Places in the window of the rows that have to be picked.
        """
        of_row, sources = shares.of_row[rows], len(shares.names)
        included = np.zeros(len(rows), dtype=np.bool_)
        included[include] = True
        in_the_end = shares.of(course.planned)
        return cls(
            names=shares.names,
            of_row=of_row,
            least=shares.least,
            most=shares.most,
            held=course.held,
            due=in_the_end.least / max(course.planned, 1),
            there=np.bincount(of_row[eligible | included], minlength=sources),
            included=np.bincount(of_row[included], minlength=sources),
            left=in_the_end.most - course.held - course.later,
            last=course.last,
        )

    def of(self, count: int) -> Sources:
        """The limits in rows for so many picks of this window, which can be met unless a source's most leaves no room.

        The largest shares are rounded down, but for a window that has rows for all of its picks only if they are
        rounded up: windows after it make up for that. Rows that have to be picked are let in, and have their places
        kept. Of the smallest shares a window makes up as much as its rows and its picks let it, what is most behind
        first.
        """
        total = int(self.held.sum()) + count
        most = self._most(Shares.of(self, total).most)
        if not self.last and np.minimum(self.there, most).sum() < count:
            most = self._most(np.ceil(np.round(self.most * total, DECIMALS)).astype(np.int64))
        behind = self.due * total - self.held
        least = np.ceil(np.round(behind, DECIMALS)).astype(np.int64)
        least = np.clip(least, 0, np.minimum(self.there, most))
        while (open_ := least > self.included).any() and np.maximum(least, self.included).sum() > count:
            least[np.argmax(np.where(open_, least - behind, -np.inf))] -= 1
        return Sources(self.names, self.of_row, least, most)

    def _most(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many rows of each source the window may pick for so many in all, shape (g,)."""
        most: NDArray[np.int64] = np.maximum(np.minimum(rows - self.held, self.left), self.included)
        return most

    def room(self, count: int) -> int:
        """How many rows, `count` at most, the largest shares let in."""
        possible = (rows for rows in range(count, 0, -1) if np.minimum(self.there, self.of(rows).most).sum() >= rows)
        return next(possible, 0)


def select_in_window(
    run: Callable[[int | None, Sources | None], Selection], shares: WindowShares, budget: int
) -> Selection | None:
    """Select from a window; where the other constraints don't let it make up what is missing, as if nothing were.

    Args:
        run: Selects at most so many rows of the window within such limits.
        shares: The shares.
        budget: Rows to pick at most.

    Returns:
        The selection; None where the largest shares let no row in.
    """
    for asked in (shares, replace(shares, due=np.zeros_like(shares.due))):
        try:
            return select_in_shares(run, asked, asked.room(budget))[0]
        except ConstraintError:
            continue
    return None
