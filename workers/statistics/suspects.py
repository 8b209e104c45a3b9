"""How much a row looks wrong beside the others, and the filter that a request has if it names none.

docs/dirty.md has the formula and what it was measured to find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers.statistics.row_figures import RowFigures

USELESS_PROMPT = 1.0
"""IFD from which the prompt does not make the response likelier."""
BREAKS_OFF = 5.0
"""Nats by which the end of a response is more surprising than those of the quarter of the rows that end best."""
NEARER = 4.0
"""How many times nearer to 1 the suspicion is of a row whose response breaks off."""
FEWEST_BROKEN = 0.1
"""Of the rows whose end is known. Where fewer stand out, none counts: some 5% of right rows stand out too."""
DROPPED = 0.5
"""Share of the usable rows that the default filter drops: enough for a pool that is two fifths wrong."""


def suspicion(figures: RowFigures) -> NDArray[np.float64]:
    """How much each row looks wrong beside the others, (m,), float64, in (0, 1]: the larger of two places.

    The places are those of its IFD and of its loss per token among all rows, as shares of the rows that have no more.
    A row without an IFD has the place of its loss alone. A row whose response breaks off is four times as near to 1 as
    it would be.
    """
    found = np.fmax(_place(figures.ifd), _place(figures.loss))
    return np.where(broken_off(figures), 1.0 - (1.0 - found) / NEARER, found)


def broken_off(figures: RowFigures) -> NDArray[np.bool_]:
    """Which rows have a response that the model would not have ended there, (m,), bool.

    Each end is compared with the lower quartile of all known ends. Where the model never learned to end a response, all
    ends are surprising and none stands out. Where two fifths of a pool break off, the quartile is still that of the
    other rows. Where fewer than a tenth of the rows stand out, no row is told.
    """
    known = figures.end_loss[~np.isnan(figures.end_loss)]
    none = np.zeros(len(figures.end_loss), dtype=np.bool_)
    if not len(known):
        return none
    found: NDArray[np.bool_] = figures.end_loss > np.quantile(known, 0.25, method="inverted_cdf") + BREAKS_OFF
    return found if found.sum() >= FEWEST_BROKEN * len(known) else none


def suspects(figures: RowFigures) -> NDArray[np.bool_]:
    """Which rows look wrong by themselves: those whose response breaks off, or whose prompt does not help, (m,), bool.

    No row for its prompt, where prompts do not help in half of the rows: then it is the model that makes nothing of
    them.
    """
    found, known = broken_off(figures), figures.ifd[~np.isnan(figures.ifd)]
    if not len(known) or np.median(known) >= USELESS_PROMPT:
        return found
    return found | (figures.ifd >= USELESS_PROMPT)


@dataclass(frozen=True, slots=True, eq=False)
class TokenBudget:
    """What m rows cost, and what may be spent.

    Attributes:
        tokens: Of each row, shape (m,), int64.
        most: Tokens of all picks at most.
        must: Which have to be picked, shape (m,), bool.
    """

    tokens: NDArray[np.int64]
    most: int
    must: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Needs:
    """What has to stay of m rows, so that budget and constraints can be met.

    Attributes:
        rows: How many are to be picked.
        may: Which may be picked at all, shape (m,), bool; of equal texts that count once, one.
        source: Of each row, as a place in the limits, shape (m,), int64.
        least: Fewest picks of each source, shape (g,), int64.
        most: Most picks of each source, likewise.
        budget: In tokens; None where rows are counted.
    """

    rows: int
    may: NDArray[np.bool_]
    source: NDArray[np.int64]
    least: NDArray[np.int64]
    most: NDArray[np.int64]
    budget: TokenBudget | None = None

    @classmethod
    def of_any(cls, count: int, rows: int) -> Needs:
        """So many picks of m rows, whichever these are."""
        one = np.zeros(1, dtype=np.int64)
        return cls(rows, np.ones(count, dtype=np.bool_), np.zeros(count, dtype=np.int64), one, one + count)


def default_filter(suspicious: NDArray[np.float64], needs: Needs) -> dict[str, NDArray[np.int64]]:
    """Which rows may not be picked where a request names no filters: the half that looks most wrong.

    Those of this half that look least wrong stay, as many as budget and constraints need: first what a source lacks,
    then rows of any source that has room for them. Where a token budget buys no set of the rows that stay, so do the
    shortest of all.

    Args:
        suspicious: What `suspicion` made of all usable rows, (m,).
        needs: What has to stay.

    Returns:
        Places among the rows, ascending, under ``suspicion``; nothing where that drops no row, or where no row
        looks worse than another.
    """
    count = int(DROPPED * len(suspicious))
    if count == 0 or suspicious.min() == suspicious.max():  # as for pairs, whose losses are all the same
        return {}
    worst = np.argsort(-suspicious, kind="stable")[:count]
    there = needs.may.copy()
    there[worst] = False
    held = np.bincount(needs.source[there], minlength=len(needs.least))
    back = worst[::-1][needs.may[worst[::-1]]]
    source = needs.source[back]
    by_source = np.argsort(source, kind="stable")
    place = np.empty_like(back)
    place[by_source] = np.arange(len(back)) - np.searchsorted(source[by_source], source[by_source])
    stays = held[source] + place < needs.least[source]
    possible = np.minimum(held + np.bincount(source[stays], minlength=len(held)), needs.most).sum()
    of_use = np.flatnonzero(~stays & (held[source] + place < needs.most[source]))
    stays[of_use[: max(0, needs.rows - int(possible))]] = True
    dropped = np.setdiff1d(worst, back[stays])
    if needs.budget is not None:
        dropped = _without_what_is_affordable(dropped, needs, needs.budget)
    return {"suspicion": dropped} if len(dropped) else {}


def _without_what_is_affordable(dropped: NDArray[np.int64], needs: Needs, budget: TokenBudget) -> NDArray[np.int64]:
    """The rows that are dropped, less the shortest of all where none of the others are short enough for the budget."""
    there = needs.may.copy()
    there[dropped] = False
    if budget.tokens[_shortest(there, needs, budget)].sum() <= budget.most:
        return dropped
    return np.setdiff1d(dropped, _shortest(needs.may, needs, budget))


def _shortest(among: NDArray[np.bool_], needs: Needs, budget: TokenBudget) -> NDArray[np.int64]:
    """Places of the fewest tokens that can be picked: what must be, and the shortest that a source lacks, or one."""
    found = [np.flatnonzero(budget.must)]
    for source, least in enumerate(needs.least.tolist()):
        mine = needs.source == source
        free = np.flatnonzero(among & mine & ~budget.must)
        missing = max(0, least - int((budget.must & mine).sum()))
        found.append(free[np.argsort(budget.tokens[free], kind="stable")[:missing]])
    places = np.concatenate(found)
    if len(places) or not among.any():
        return places
    rows = np.flatnonzero(among)
    return rows[[np.argmin(budget.tokens[rows])]]


def _place(figure: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the rows whose figure is known that have no more of it, (m,); NaN where it is not known."""
    known = ~np.isnan(figure)
    places = np.full(len(figure), np.nan)
    if known.any():
        places[known] = rankdata(figure[known], method="average") / known.sum()
    return places
