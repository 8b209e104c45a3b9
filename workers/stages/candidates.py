"""Which rows may be picked, and as how long: filters and lengths, applied as stored sketches are read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from workers.data.rejection import Reason, enforce_limit
from workers.runtime.failures import JobError
from workers.stages.limits import FIELD, barred, impossible, same_texts, shares_of
from workers.statistics.row_figures import dropped_by, kept_and_scaled, length_factors, row_figures
from workers.statistics.suspects import Needs, TokenBudget, default_filter, suspects, suspicion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from app.core.contracts.selection_request import Budget, SelectionSpec
    from workers.data.corpus import Corpus
    from workers.gradients.shards import StoredSketches
    from workers.stages.limits import Kept, Membership
    from workers.statistics.row_figures import RowFigures


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What may be picked, out of m usable rows: those with a finite gradient.

    Attributes:
        values: Sketch of each candidate as it is selected from, shape (n, p), float32.
        rows: Row number in the dataset of each candidate, shape (n,), int64.
        places: Their places among the usable rows, ascending, shape (n,), int64.
        factors: What the stored sketch of each candidate is multiplied with, shape (n,), float64; None: nothing.
        usable: Row numbers of the usable rows, shape (m,), int64.
        figures: Of the usable rows.
        suspicion: How much each of these looks wrong, shape (m,), float64, 0 to 1.
        suspect: Which of them look wrong by themselves, shape (m,), bool.
        rejected: Row numbers of the rows that can't be used, by reason.
        filtered: Row numbers of usable rows that may not be picked, by reason.
        kept: The picks of an earlier job, which are to be picked first; None where none is extended.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    factors: NDArray[np.float64] | None
    usable: NDArray[np.int64]
    figures: RowFigures
    suspicion: NDArray[np.float64]
    suspect: NDArray[np.bool_]
    rejected: dict[Reason, list[int]]
    filtered: dict[str, list[int]]
    kept: Kept | None = None

    @property
    def norms(self) -> NDArray[np.float64]:
        """Lengths of the candidates' sketches as they were stored, shape (n,)."""
        return self.figures.norm[self.places]

    def worst(self, most: int) -> NDArray[np.int64]:
        """Places among the usable rows of those that look most wrong, the worst first; ties by row number."""
        found: NDArray[np.int64] = np.argsort(-self.suspicion, kind="stable")[:most]
        return found


SAME_TEXT = "near_duplicates_text"
DECONTAMINATE = "decontaminate"


def left_out(
    figures: RowFigures,
    suspicious: NDArray[np.float64],
    spec: SelectionSpec,
    rows: NDArray[np.int64],
    tokens: NDArray[np.int64],
    membership: Membership,
) -> dict[str, NDArray[np.int64]]:
    """Which of m rows may not be picked, by reason.

    Args:
        figures: Of these rows.
        suspicious: How much each looks wrong, shape (m,).
        spec: Filters, budget and constraints.
        rows: Their row numbers, ascending, shape (m,).
        tokens: Tokens of each, shape (m,).
        membership: Which rows have to be picked, and which have the same text.

    Returns:
        Their places among the rows, ascending. A row that has to be picked is not among them.
    """
    if spec.filters is None:
        dropped = default_filter(suspicious, _needs(spec, rows, tokens, membership))
    else:
        dropped = dropped_by(figures, spec.filters)
    overlaps = np.isin(rows, membership.overlapping)
    if overlaps.any():
        kept = {reason: places[~overlaps[places]] for reason, places in dropped.items()}
        dropped = {reason: places for reason, places in kept.items() if len(places)}
        dropped[DECONTAMINATE] = np.flatnonzero(overlaps)
    must = np.isin(rows, membership.include)
    if must.any():
        kept = {reason: places[~must[places]] for reason, places in dropped.items()}
        dropped = {reason: places for reason, places in kept.items() if len(places)}
    marks = membership.marks
    if marks is not None and len(marks.text):
        stays = staying(len(rows), dropped)
        may = stays[~np.isin(rows[stays], membership.exclude)]
        repeated = may[same_texts(marks.text, rows[may], membership.include)]
        if len(repeated):
            dropped[SAME_TEXT] = repeated
    return dropped


def _needs(spec: SelectionSpec, rows: NDArray[np.int64], tokens: NDArray[np.int64], membership: Membership) -> Needs:
    """What the default filter has to leave, so that it makes no request impossible."""
    marks, asked = membership.marks, spec.constraints
    plain = Needs.of_any(len(rows), picks_about(spec.budget, tokens, len(tokens), membership.kept_count))
    plain = replace(plain, may=~barred(rows, membership))
    if spec.budget.tokens is not None:
        kept = tokens[np.isin(rows, membership.kept.rows)].sum() if membership.kept is not None else 0
        must = np.isin(rows, membership.include)
        plain = replace(plain, budget=TokenBudget(tokens, spec.budget.tokens + int(kept), must))
    if marks is None or asked is None or not asked.sources:
        return plain
    limits = shares_of(asked, marks, membership.column or "", rows).of(plain.rows)
    return replace(plain, source=limits.of_row, least=limits.least, most=limits.most)


def picks_about(budget: Budget, tokens: NDArray[np.int64], usable: int, kept: int) -> int:
    """How many picks a budget comes to; one of tokens by the mean of the rows, as they are known before picking.

    Args:
        budget: As it was asked for.
        tokens: Of the usable rows, or of some of them.
        usable: How many rows can be used.
        kept: Picks of an earlier job, which the budget does not count.

    Raises:
        JobError: It is a count, and fewer rows can be used.
    """
    if budget.tokens is None:
        return picks_of(budget, usable, kept)
    return min(usable, kept + math.ceil(budget.tokens / max(1.0, float(tokens.mean())))) if len(tokens) else 0


def staying(count: int, dropped: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The places of `count` rows that no reason drops, ascending."""
    stays = np.ones(count, dtype=np.bool_)
    for places in dropped.values():
        stays[places] = False
    return np.flatnonzero(stays)


def candidates_of(
    stored: StoredSketches,
    corpus: Corpus,
    spec: SelectionSpec,
    membership: Membership,
    max_rejected_fraction: float = 1.0,
) -> Candidates:
    """The rows that a request may pick from.

    Args:
        stored: All sketches; their matrix is overwritten.
        corpus: The samples that they are of.
        spec: Filters, lengths, budget and constraints, as the client asked for them.
        membership: What the constraints are about.
        max_rejected_fraction: Share of the rows that may be of no use.

    Raises:
        JobError: The filters leave no row, or a row that has to be picked has no finite gradient.
        DatasetError: A larger share can't be used.
    """
    rejected = {reason: rows.tolist() for reason, rows in corpus.rejected.items() if len(rows)}
    usable, not_finite = corpus.rows[stored.finite], corpus.rows[stored.scored & ~stored.finite]
    if len(not_finite):
        rejected[Reason.NON_FINITE_GRADIENT] = not_finite.tolist()
        enforce_limit(rejected, corpus.rows_total, max_rejected_fraction)
    lost = membership.include[~np.isin(membership.include, usable)]
    if len(lost):
        raise must_be_usable(int(lost[0]), f"{FIELD}.include" if membership.kept is None else "extends")
    losses = (stored.token_losses, stored.unprompted, stored.end_losses)
    figures = row_figures(stored.values, *(one[stored.finite] for one in losses))
    suspicious = suspicion(figures)
    tokens = corpus.lengths[stored.finite]
    dropped = left_out(figures, suspicious, spec, usable, tokens, membership)
    keep = staying(len(usable), dropped)
    if len(usable) and not len(keep):
        counts = ", ".join(f"{reason} {len(places)}" for reason, places in dropped.items())
        raise JobError(
            "filters-leave-nothing",
            "No row passes the filters",
            "selection.filters",
            f"all {len(usable)} usable rows are beyond a bound ({counts}): widen the bounds",
        )
    factors = length_factors(figures.norm, spec.normalize)
    return Candidates(
        values=kept_and_scaled(stored.values, keep, factors),
        rows=usable[keep],
        places=keep,
        factors=None if factors is None else factors[keep],
        usable=usable,
        figures=figures,
        suspicion=suspicious,
        suspect=suspects(figures),
        rejected=rejected,
        filtered={reason: usable[places].tolist() for reason, places in dropped.items()},
        kept=membership.kept,
    )


def must_be_usable(row: int, field: str) -> JobError:
    """What a job fails with that has to pick a row without a finite gradient."""
    return impossible(
        field, f"row {row} has to be picked and can't be used ({Reason.NON_FINITE_GRADIENT}): leave it out"
    )


def picks_of(budget: Budget, usable: int, kept: int) -> int:
    """The number of picks that a budget stands for: a fraction is of the usable rows, rounded down, at least 1.

    Args:
        budget: As it was asked for.
        usable: How many rows can be used.
        kept: Picks of an earlier job, which the budget does not count and the number does.

    Raises:
        JobError: It is more than there are usable rows.
        ValueError: It is one of tokens.
    """
    if budget.tokens is not None:
        raise ValueError("a token budget stands for no number of picks")
    if budget.count is None:
        # A fraction such as 0.29 of 100 must give 29 although 0.29 * 100 is a little less in floating point.
        return min(kept + max(1, math.floor(round((budget.fraction or 0) * usable, 6))), max(usable, 1))
    if kept + budget.count > usable:
        rows = "1 row" if usable == 1 else f"{usable} rows"
        raise JobError(
            "budget-too-large",
            "The budget is larger than the dataset",
            "selection.budget.count",
            f"is {budget.count}, but only {rows} can be used{_beside(kept)}: ask for fewer, or for a fraction",
        )
    return kept + budget.count


def _beside(kept: int) -> str:
    return f", and {kept} of them are kept by extends" if kept else ""


def picks_among(candidates: Candidates, budget: Budget, excluded: int) -> int | None:
    """The number of picks that a budget stands for once rows were filtered; None for one of tokens.

    A fraction is of all usable rows, so that a filter does not make the subset smaller, but all candidates at most.

    Args:
        candidates: The rows that filters let through.
        budget: As it was asked for.
        excluded: How many of these may not be picked all the same.

    Raises:
        JobError: It is a count, and fewer rows may be picked.
    """
    if budget.tokens is not None:
        return None
    kept, there = 0 if candidates.kept is None else len(candidates.kept.rows), len(candidates.rows) - excluded
    wanted = picks_of(budget, len(candidates.usable), kept)
    if budget.count is not None and wanted > there:
        raise JobError(
            "budget-too-large",
            "The budget is larger than the dataset",
            "selection.budget.count",
            f"is {budget.count}, but only {there} of {len(candidates.usable)} usable rows pass selection.filters"
            f"{f' and are not among the {excluded} that are excluded' if excluded else ''}{_beside(kept)}: "
            "ask for fewer, or widen the bounds",
        )
    return min(wanted, there)
