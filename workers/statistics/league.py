"""The methods of a job side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.selection import reach
from workers.selection.compare import jaccard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from workers.selection import Selection

SOURCES_NAMED = 8


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What all methods picked from: n candidates.

    Attributes:
        sketches: Shape (n, p).
        tokens: Tokens that training on each reads, shape (n,).
        target: Sketches of the target rows, shape (q, p), or None.
        names: Of the sources.
        source: Place in `names` of each candidate's source, -1 for none, shape (n,); None without a source column.
    """

    sketches: NDArray[np.float32]
    tokens: NDArray[np.int64]
    target: NDArray[np.float32] | None
    names: Sequence[str]
    source: NDArray[np.int64] | None


def league(runs: Mapping[str, Sequence[Selection]], main: str, ground: Ground) -> list[dict[str, Any]]:
    """A row for each method, that of the largest log-det first.

    Args:
        runs: The selections of each method, over whose runs the figures are means.
        main: The method whose first run the overlap is with.
        ground: What they picked from.
    """
    subset = runs[main][0].indices
    rows = [_row(name, selections, subset, ground) for name, selections in runs.items()]
    return sorted(rows, key=lambda row: (-row["log_det"], row["method"] != main))


def _row(name: str, runs: Sequence[Selection], subset: NDArray[np.int64], ground: Ground) -> dict[str, Any]:
    picks = [run.indices for run in runs]
    reached = [] if ground.target is None else [reach(ground.sketches, one, ground.target) for one in picks]
    return {
        "method": name,
        "runs": len(runs),
        "rows": float(np.mean([len(one) for one in picks])),
        "tokens": float(np.mean([int(ground.tokens[one].sum()) for one in picks])),
        "log_det": float(np.mean([run.log_det[-1] for run in runs])),
        "mean_conflict": float(np.mean([run.conflicts.mean() for run in runs])),
        "overlap": float(np.mean([jaccard(subset, one) for one in picks])),
        "target_covered": float(np.mean([one.covered for one in reached])) if reached else None,
        "target_cosine": float(np.mean([one.cosine for one in reached])) if reached else None,
        "sources": _sources(np.concatenate(picks), ground),
    }


def _sources(picks: NDArray[np.int64], ground: Ground) -> dict[str, float]:
    """Share of the picks from each of the largest sources of the pool, those of nothing included."""
    if ground.source is None:
        return {}
    there = np.bincount(ground.source[ground.source >= 0], minlength=len(ground.names))
    largest = np.argsort(-there, kind="stable")[:SOURCES_NAMED]
    held = ground.source[picks]
    return {ground.names[at]: float((held == at).mean()) for at in largest.tolist() if there[at]}
