"""Shares of the picks by source, where the number of picks is known only after picking.

A token budget or an early stop decides how many rows are picked, and shares of them are limits in rows only then. So
the selection is made anew for as many rows as came out, until the shares of those hold. The number falls each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

from workers.selection.constraints import ConstraintError, Sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workers.selection.result import Selection, StopReason

#: Decimals that a share of some rows is rounded to: 0.29 of 100 is a little less than 29 in floating point.
DECIMALS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """How much of the picks may come from each source.

    Attributes:
        names: Of the sources, g of them.
        of_row: The source of each row, as a place in `names`, shape (n,), int64.
        least: Smallest share of each source, shape (g,), float64, in [0, 1]. Of k picks at least that, rounded up.
        most: Largest share of each source, likewise. Of k picks at most that, rounded down.
    """

    names: tuple[str, ...]
    of_row: NDArray[np.int64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]

    def of(self, count: int) -> Sources:
        """The limits in rows for so many picks."""
        least = [ceil(round(share * count, DECIMALS)) for share in self.least.tolist()]
        most = [floor(round(share * count, DECIMALS)) for share in self.most.tolist()]
        return Sources(self.names, self.of_row, np.array(least, dtype=np.int64), np.array(most, dtype=np.int64))

    def held_by(self, rows: NDArray[np.int64]) -> bool:
        """Whether the shares hold for a set of rows."""
        limits = self.of(len(rows))
        held = np.bincount(self.of_row[rows], minlength=len(self.names))
        return bool(((limits.least <= held) & (held <= limits.most)).all())


def select_in_shares(
    run: Callable[[int | None, Sources | None], Selection], shares: Shares, budget: int | None
) -> tuple[Selection, Sources]:
    """Select so that the shares hold of the rows that come out.

    Args:
        run: Selects at most so many rows within such limits.
        shares: The shares.
        budget: Rows to pick, or None where tokens alone end the selection.

    Returns:
        The selection, and the limits in rows that it was made within.

    Raises:
        ConstraintError: No set that the greedy comes to meets the shares beside the other constraints. Where the budget
            is in rows and nothing ends the selection early, there is no such set.
    """
    without: Selection | None = None
    if budget is None:
        without = run(None, None)
        count = len(without.indices)
    else:
        count = budget
    refused: ConstraintError | None = None
    stop: StopReason | None = None
    asked, came = count, None if budget is not None else count
    while count > 0:
        limits = shares.of(count)
        try:
            found = run(count, limits)
        except ConstraintError as error:
            if error.picked is None and budget == count:
                raise
            refused, stop, came = refused or error, stop or error.stop, came or error.picked
            count = count - max(1, count // 32) if error.picked is None else min(error.picked, count - 1)
            continue
        stop = stop or found.stop_reason
        if shares.held_by(found.indices):
            reason = stop if len(found.indices) < asked or stop == "early_stop" else found.stop_reason
            if reason == "budget" and without is not None:
                reason = without.stop_reason  # whether tokens ended it; the rows that were asked for are of no request
            return replace(found, stop_reason=reason), limits
        came = came or len(found.indices)
        count = min(len(found.indices), count - 1)
    refused = refused or ConstraintError(
        "sources", "no set of rows that the greedy comes to meets the shares beside the other constraints"
    )
    cause = "early_stop_ratio" if stop == "early_stop" else "the token budget" if budget is None else None
    if came and cause:
        raise ConstraintError(refused.constraint, f"{refused}, where {cause} leaves {came} rows or fewer") from refused
    raise refused
