"""How much a row looks wrong beside the others, and the filter that a request has if it names none.

docs/dirty.md has the formula and what it was measured to find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers.statistics.row_figures import RowFigures

USELESS_PROMPT = 1.0
"""IFD from which the prompt does not make the response likelier."""
DROPPED = 0.5
"""Share of the usable rows that the default filter drops: enough for a pool that is two fifths wrong."""


def suspicion(figures: RowFigures) -> NDArray[np.float64]:
    """How much each row looks wrong beside the others, (m,), float64, in (0, 1]: the larger of two places.

    The places are those of its IFD and of its loss per token among all rows, as shares of the rows that have no more.
    A row without an IFD has the place of its loss alone.
    """
    return np.fmax(_place(figures.ifd), _place(figures.loss))


def suspects(figures: RowFigures) -> NDArray[np.bool_]:
    """Which rows look wrong by themselves: those whose prompt does not help, (m,), bool.

    None, where prompts do not help in half of the rows: then it is the model that makes nothing of them.
    """
    known = figures.ifd[~np.isnan(figures.ifd)]
    if not len(known) or np.median(known) >= USELESS_PROMPT:
        return np.zeros(len(figures.ifd), dtype=np.bool_)
    found: NDArray[np.bool_] = figures.ifd >= USELESS_PROMPT
    return found


def default_filter(suspicious: NDArray[np.float64], at_least: int) -> dict[str, NDArray[np.int64]]:
    """Which rows may not be picked where a request names no filters: the half that looks most wrong.

    Args:
        suspicious: What `suspicion` made of all usable rows, (m,).
        at_least: Rows that must stay, so that the budget can be met.

    Returns:
        Places among the rows, ascending, int64, under ``suspicion``; nothing where that drops no row, or where no row
        looks worse than another.
    """
    count = min(int(DROPPED * len(suspicious)), len(suspicious) - at_least)
    if count <= 0 or suspicious.min() == suspicious.max():  # as for pairs, whose losses are all the same
        return {}
    worst = np.argsort(-suspicious, kind="stable")[:count]
    return {"suspicion": np.sort(worst)}


def _place(figure: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the rows whose figure is known that have no more of it, (m,); NaN where it is not known."""
    known = ~np.isnan(figure)
    places = np.full(len(figure), np.nan)
    if known.any():
        places[known] = rankdata(figure[known], method="average") / known.sum()
    return places
