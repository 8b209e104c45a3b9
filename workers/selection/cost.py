"""What constraints cost: the picks that they kept out, and the information that went with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.constraints import ConstraintError, Constraints
from workers.selection.problem import BudgetError
from workers.selection.selector import select
from workers.selection.sketches import Sketches

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workers.selection.config import SelectionConfig
    from workers.selection.progress import Progress
    from workers.selection.result import Selection


@dataclass(frozen=True, slots=True)
class CostOfOne:
    """A constraint by itself: what is selected under it alone, beside the unconstrained greedy of as many rows.

    Attributes:
        log_det: F that it costs, nats.
        certificate: Proven share of the best set under it alone, in [0, 1].
        kept_out: Picks of the unconstrained greedy that the selection under it alone has not.
    """

    log_det: float
    certificate: float
    kept_out: int


@dataclass(frozen=True, slots=True)
class Cost:
    """A selection beside the unconstrained greedy of as many rows.

    Attributes:
        log_det: F of the unconstrained greedy less F of the selection, nats.
        kept_out: Its picks that are not in the selection, by what keeps them out of it: "exclude", "sources", "tokens",
            "near_duplicates", or "displaced" where they would be allowed and other rows came first.
        unconstrained: Its picks, shape (k,), int64.
        each: Of each constraint by itself, by its name; of one that can't be met without the others, none.
    """

    log_det: float
    kept_out: dict[str, int]
    unconstrained: NDArray[np.int64]
    each: dict[str, CostOfOne]


def cost_of(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    selection: Selection,
    config: SelectionConfig,
    constraints: Constraints,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Cost:
    """Hold a selection against the greedy without its constraints; a selection, and one more for each of several.

    A price is no constraint and is paid in all of them.

    Args:
        sketches: As for `select`.
        selection: What `select` gave for them, at least one row.
        config: Its config; one that climbs the objective.
        constraints: Its constraints.
        on_progress: As for `select`.
        should_stop: As for `select`.

    Raises:
        ValueError: What `select` raises.
    """
    watched: dict[str, Any] = {"on_progress": on_progress, "should_stop": should_stop}
    count, parts = len(selection.indices), _each(constraints)
    plain = replace(config, alpha=selection.alpha, early_stop_ratio=None, curvature=False)
    priced = None if constraints.price is None else Constraints(price=constraints.price)
    under: dict[str, Selection | None] = dict.fromkeys(parts, selection)
    if len(parts) > 1:
        under = {name: _under(sketches, replace(plain, budget=count), part, watched) for name, part in parts.items()}
    made = {name: found for name, found in under.items() if found is not None and len(found.indices)}
    longest = min(len(sketches), max(count, *(len(found.indices) for found in made.values()), 1))
    free = select(sketches, replace(plain, budget=longest), priced, **watched)
    lost = np.setdiff1d(free.indices[:count], selection.indices)
    reasons = _reasons(Sketches(sketches), selection, constraints, lost)
    names, counts = np.unique(reasons, return_counts=True)
    return Cost(
        log_det=_lost(free, selection),
        kept_out=dict(zip(names.tolist(), counts.tolist(), strict=True)),
        unconstrained=free.indices[:count],
        each={
            name: CostOfOne(
                _lost(free, found),
                found.certificate,
                len(np.setdiff1d(free.indices[: len(found.indices)], found.indices)),
            )
            for name, found in made.items()
        },
    )


def _lost(free: Selection, found: Selection) -> float:
    """F of the first picks of the unconstrained greedy, as many as were found or as there are, less F of these."""
    return float(free.log_det[: len(found.indices)][-1] - found.log_det[-1]) if len(free.indices) else 0.0


def _each(constraints: Constraints) -> dict[str, Constraints]:
    """Each constraint by itself, with the price that all pay."""
    alone: dict[str, dict[str, Any]] = {
        "tokens": {"tokens": constraints.tokens, "token_budget": constraints.token_budget},
        "sources": {"sources": constraints.sources},
        "include": {"include": constraints.include},
        "exclude": {"exclude": constraints.exclude},
        "near_duplicates": {"near_cosine": constraints.near_cosine, "near_rows": constraints.near_rows},
    }
    parts = {name: Constraints(price=constraints.price, **values) for name, values in alone.items()}
    return {name: part for name, part in parts.items() if part.bind}


def _under(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    config: SelectionConfig,
    part: Constraints,
    watched: dict[str, Any],
) -> Selection | None:
    """The selection under one constraint, None if it can't be met; by tokens alone, as many rows as these buy."""
    config = config if part.token_budget is None else replace(config, budget=None)
    try:
        return select(sketches, config, part, **watched)
    except (ConstraintError, BudgetError):
        return None


def _reasons(
    sketches: Sketches, selection: Selection, constraints: Constraints, rows: NDArray[np.int64]
) -> NDArray[np.str_]:
    """What keeps each of some rows out of a selection."""
    picks = selection.indices
    reasons = np.full(len(rows), "displaced", dtype="<U16")
    if constraints.near_cosine is not None and len(rows):
        sketches = sketches if constraints.near_rows is None else Sketches(constraints.near_rows)
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
