"""How sure the picks are: the share of reselections that pick each row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.constraints import ConstraintError, Constraints
from workers.selection.seeds import random_signs, random_words
from workers.selection.selector import select
from workers.selection.sketches import Sketches

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workers.selection.config import SelectionConfig
    from workers.selection.progress import Progress


@dataclass(frozen=True, slots=True, eq=False)
class Stability:
    """What reselections say about each row.

    Attributes:
        picked: Share of the reselections that the row was a candidate of and that picked it, shape (n,), in [0, 1]; NaN
            for a row that was a candidate of none.
        sketches: Reselections from other sketches.
        pools: Reselections from resampled pools.
        impossible: Of those, pools whose rows could not meet the constraints; no row's share counts them.
    """

    picked: NDArray[np.float64]
    sketches: int
    pools: int
    impossible: int


def stability(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    config: SelectionConfig,
    constraints: Constraints | None = None,
    *,
    resketched: int = 5,
    bootstrap: int = 20,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Stability:
    """Select again from other sketches and from resampled pools, and count.

    Another sketch is a sketch of the sketch, z' = S z / sqrt(p) with S of random signs, shape (p, p): its inner
    products are right in expectation, with the spread that a first sketch of length p has. A resampled pool is n rows
    drawn with replacement, each held once: about 63% of the rows. A row that has to be in the set is in each.

    Args:
        sketches: Shape (n, p), as for `select`.
        config: The selection. Its alpha is settled anew for each.
        constraints: As for `select`.
        resketched: Reselections from other sketches.
        bootstrap: Reselections from resampled pools.
        on_progress: As for `select`, over again for each reselection.
        should_stop: As for `select`.

    Raises:
        ValueError: What `select` raises, or if nothing is to be reselected.
    """
    if resketched < 0 or bootstrap < 0 or resketched + bootstrap < 1:
        raise ValueError(f"sketches is {resketched} and bootstrap {bootstrap}; together they must be at least 1")
    source = Sketches(sketches)
    times, picked = np.zeros(source.n), np.zeros(source.n)
    for number in range(resketched):
        other = _resketched(source, config.seed, number)
        found = select(other, config, constraints, on_progress=on_progress, should_stop=should_stop)
        times += 1
        picked[found.indices] += 1
    limits, impossible = constraints or Constraints(), 0
    for number in range(bootstrap):
        words = random_words(source.n, seed=config.seed, role="resampled pool", layer=str(number))
        rows = np.union1d((words % np.uint64(source.n)).astype(np.int64), limits.include)
        there = limits.of(rows)
        budget = None if config.budget is None else min(config.budget, there.most_rows(len(rows)))
        try:
            found = select(
                source.subset(torch.from_numpy(rows).to(source.device)).data,
                replace(config, budget=budget),
                None if constraints is None else there,
                on_progress=on_progress,
                should_stop=should_stop,
            )
        except ConstraintError:
            impossible += 1
            continue
        times[rows] += 1
        picked[rows[found.indices]] += 1
    with np.errstate(invalid="ignore"):
        return Stability(picked / np.where(times > 0, times, np.nan), resketched, bootstrap, impossible)


def _resketched(source: Sketches, seed: int, number: int) -> NDArray[np.float32]:
    """Another sketch of all rows, shape (n, p), float32, on the host."""
    signs = random_signs(source.p * source.p, seed=seed, role="other sketch", layer=str(number))
    projection = torch.from_numpy(signs.reshape(source.p, source.p)).to(source.device, source.dtype) / source.p**0.5
    found = np.empty((source.n, source.p), dtype=np.float32)
    for where, tile in source.tiles():
        found[where] = (tile @ projection).cpu().numpy()
    return found
