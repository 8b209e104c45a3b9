"""Which rows may be picked, and as how long: filters and lengths, applied as stored sketches are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.data.rejection import Reason, enforce_limit
from workers.gradients.checked_tensors import pack, unpack
from workers.gradients.row_index import NAME_BYTES
from workers.runtime.failures import JobError
from workers.statistics.row_figures import dropped_by, kept_and_scaled, length_factors, row_figures
from workers.statistics.suspects import default_filter, suspects, suspicion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from app.core.contracts.job_request import Budget, SelectionSpec
    from app.core.storage import ArtifactStore
    from workers.data.corpus import Corpus
    from workers.gradients.shards import StoredSketches
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

    @property
    def norms(self) -> NDArray[np.float64]:
        """Lengths of the candidates' sketches as they were stored, shape (n,)."""
        return self.figures.norm[self.places]

    def worst(self, most: int) -> NDArray[np.int64]:
        """Places among the usable rows of those that look most wrong, the worst first; ties by row number."""
        found: NDArray[np.int64] = np.argsort(-self.suspicion, kind="stable")[:most]
        return found


def left_out(figures: RowFigures, suspicious: NDArray[np.float64], spec: SelectionSpec) -> dict[str, NDArray[np.int64]]:
    """Which rows may not be picked, by reason: places among the rows that the figures are of, ascending."""
    if spec.filters is None:
        return default_filter(suspicious, picks_of(spec.budget, len(suspicious)))
    return dropped_by(figures, spec.filters)


def staying(count: int, dropped: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The places of `count` rows that no reason drops, ascending."""
    stays = np.ones(count, dtype=np.bool_)
    for places in dropped.values():
        stays[places] = False
    return np.flatnonzero(stays)


def candidates_of(
    stored: StoredSketches, corpus: Corpus, spec: SelectionSpec, max_rejected_fraction: float = 1.0
) -> Candidates:
    """The rows that a request may pick from.

    Args:
        stored: All sketches; their matrix is overwritten.
        corpus: The samples that they are of.
        spec: Filters, lengths and budget, as the client asked for them.
        max_rejected_fraction: Share of the rows that may be of no use.

    Raises:
        JobError: The filters leave no row.
        DatasetError: A larger share can't be used.
    """
    rejected = {reason: rows.tolist() for reason, rows in corpus.rejected.items() if len(rows)}
    usable, not_finite = corpus.rows[stored.finite], corpus.rows[stored.scored & ~stored.finite]
    if len(not_finite):
        rejected[Reason.NON_FINITE_GRADIENT] = not_finite.tolist()
        enforce_limit(rejected, corpus.rows_total, max_rejected_fraction)
    figures = row_figures(stored.values, stored.token_losses[stored.finite], stored.unprompted[stored.finite])
    suspicious = suspicion(figures)
    dropped = left_out(figures, suspicious, spec)
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
    )


def picks_of(budget: Budget, usable: int) -> int:
    """The number of picks that a budget stands for: a fraction is of the usable rows, rounded down, at least 1.

    Raises:
        JobError: It is more than there are usable rows.
    """
    if budget.count is None:
        # A fraction such as 0.29 of 100 must give 29 although 0.29 * 100 is a little less in floating point.
        return max(1, math.floor(round((budget.fraction or 0) * usable, 6)))
    if budget.count > usable:
        raise JobError(
            "budget-too-large",
            "The budget is larger than the dataset",
            "selection.budget.count",
            f"is {budget.count}, but only {usable} rows can be used: ask for fewer, or for a fraction",
        )
    return budget.count


def picks_among(candidates: Candidates, budget: Budget) -> int:
    """The number of picks that a budget stands for once rows were filtered.

    A fraction is of all usable rows, so that a filter does not make the subset smaller, but all candidates at most.

    Raises:
        JobError: It is a count, and fewer rows may be picked.
    """
    wanted, there = picks_of(budget, len(candidates.usable)), len(candidates.rows)
    if budget.count is not None and wanted > there:
        raise JobError(
            "budget-too-large",
            "The budget is larger than the dataset",
            "selection.budget.count",
            f"is {wanted}, but only {there} of {len(candidates.usable)} usable rows pass selection.filters: ask for "
            "fewer, or widen the bounds",
        )
    return min(wanted, there)


@dataclass(frozen=True, slots=True, eq=False)
class KeptCandidates:
    """What workers that select from parts of n candidates know of them.

    Attributes:
        files: Names of the files that their sketches are in.
        file: Place in `files` of each candidate's file, shape (n,), int32.
        row: Its row there, shape (n,), int32.
        factors: What its stored sketch is multiplied with, shape (n,), float64; None: nothing.
    """

    files: tuple[str, ...]
    file: NDArray[np.int32]
    row: NDArray[np.int32]
    factors: NDArray[np.float64] | None


def write_candidates(artifacts: ArtifactStore, name: str, kept: KeptCandidates) -> None:
    """Keep the candidates for the workers that select from parts of them."""
    files = np.frombuffer(bytes.fromhex("".join(kept.files)), dtype=np.uint8).reshape(-1, NAME_BYTES)
    tensors: dict[str, NDArray[Any]] = {"files": files, "file": kept.file, "row": kept.row}
    if kept.factors is not None:
        tensors["factors"] = kept.factors
    artifacts.write(name, pack(tensors, {}))


def read_candidates(artifacts: ArtifactStore, name: str) -> KeptCandidates | None:
    """What `write_candidates` kept; None where it is not there or not whole."""
    content = artifacts.read(name)
    found = None if content is None else unpack(content)
    if found is None:
        return None
    tensors = found.tensors
    files = tuple(bytes(file).hex() for file in tensors["files"])
    return KeptCandidates(files, tensors["file"], tensors["row"], tensors.get("factors"))
