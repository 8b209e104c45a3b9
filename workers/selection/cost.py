"""What constraints cost: the picks that they kept out, and the information that went with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.selector import select
from workers.selection.sketches import Sketches

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workers.selection.config import SelectionConfig
    from workers.selection.constraints import Constraints
    from workers.selection.progress import Progress
    from workers.selection.result import Selection


@dataclass(frozen=True, slots=True)
class Cost:
    """A selection beside the unconstrained greedy of as many rows.

    Attributes:
        log_det: F of the unconstrained greedy less F of the selection, nats.
        kept_out: Its picks that are not in the selection, by what keeps them out of it: "exclude", "sources", "tokens",
            "near_duplicates", or "displaced" where they would be allowed and other rows came first.
        unconstrained: Its picks, shape (k,), int64.
    """

    log_det: float
    kept_out: dict[str, int]
    unconstrained: NDArray[np.int64]


def cost_of(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    selection: Selection,
    config: SelectionConfig,
    constraints: Constraints,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Cost:
    """Hold a selection against the greedy without its constraints; takes as long as a selection.

    Args:
        sketches: As for `select`.
        selection: What `select` gave for them, at least one row.
        config: Its config.
        constraints: Its constraints.
        on_progress: As for `select`.
        should_stop: As for `select`.

    Raises:
        ValueError: What `select` raises.
    """
    alone = replace(config, budget=len(selection.indices), alpha=selection.alpha, early_stop_ratio=None)
    free = select(sketches, alone, on_progress=on_progress, should_stop=should_stop)
    lost = np.setdiff1d(free.indices, selection.indices)
    reasons = _reasons(Sketches(sketches), selection, constraints, lost)
    names, counts = np.unique(reasons, return_counts=True)
    return Cost(
        log_det=float(free.log_det[-1] - selection.log_det[-1]) if len(free.indices) else 0.0,
        kept_out=dict(zip(names.tolist(), counts.tolist(), strict=True)),
        unconstrained=free.indices,
    )


def _reasons(
    sketches: Sketches, selection: Selection, constraints: Constraints, rows: NDArray[np.int64]
) -> NDArray[np.str_]:
    """What keeps each of some rows out of a selection."""
    picks = selection.indices
    reasons = np.full(len(rows), "displaced", dtype="<U16")
    if constraints.near_cosine is not None and len(rows):
        reasons[_largest_cosines(sketches, rows, picks) >= constraints.near_cosine - 1e-12] = "near_duplicates"
    if constraints.token_budget is not None and constraints.tokens is not None:
        left = constraints.token_budget - int(constraints.tokens[picks].sum())
        reasons[constraints.tokens[rows] > left] = "tokens"
    if constraints.sources is not None:
        held = np.bincount(constraints.sources.of_row[picks], minlength=len(constraints.sources.names))
        reasons[(held >= constraints.sources.most)[constraints.sources.of_row[rows]]] = "sources"
    reasons[np.isin(rows, constraints.exclude)] = "exclude"
    return reasons


def _largest_cosines(sketches: Sketches, rows: NDArray[np.int64], picks: NDArray[np.int64]) -> NDArray[np.float64]:
    """The largest cosine of each of some rows with a pick, shape (m,), float64."""
    units, others = (
        torch.nn.functional.normalize(sketches.gather(torch.from_numpy(part), torch.float64), dim=1)
        for part in (rows, picks)
    )
    found: NDArray[np.float64] = (units @ others.T).amax(dim=1).cpu().numpy()
    return found
