"""Rows that stand for all others, as CRAIG picks them: greedy facility location on distances of gradients.

f(S) = sum over all rows i of max over j in S of (D - |z_i - z_j|), D the largest distance. The first pick has the
smallest sum of distances; a further pick x adds sum_i max(0, d_i - |z_i - z_x|), d_i the distance of i to its nearest
pick. So D changes no pick. f is monotone and submodular: stale gains are upper bounds, and only rows whose bound leads
are looked at again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.progress import Watch
from workers.selection.sketches import Sketches

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from workers.selection.progress import Progress

#: Rows whose distances to all others are computed together.
_TOGETHER = 64


def facility_location(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    count: int,
    *,
    exclude: NDArray[np.int64] | None = None,
    device: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.int64]:
    """The greedy's `count` rows in the order of picking, shape (count,).

    Args:
        sketches: Shape (n, p), as for `select`.
        count: Rows to pick, at most n less those that are excluded, at least 1.
        exclude: Rows that are stood for and never picked, shape (m,); None: no row.
        device: As in `SelectionConfig`.
        on_progress: As for `select`.
        should_stop: As for `select`.
    """
    rows, watch = Sketches(sketches, device), Watch(on_progress, should_stop)
    squares = rows.squared_norms(watch)
    totals = _of_all(rows, squares, lambda distances: distances.sum(dim=1), watch)
    closed = torch.from_numpy(np.empty(0, dtype=np.int64) if exclude is None else exclude).to(rows.device)
    totals[closed] = torch.inf
    picks = [int(totals.argmin())]
    nearest = _distances(rows, squares, torch.tensor(picks))[0]
    bounds = _of_all(rows, squares, lambda distances: (nearest - distances).clamp_min(0.0).sum(dim=1), watch)
    bounds[closed] = -torch.inf
    bounds[picks] = -torch.inf
    while len(picks) < count:
        best, distances = _leader(rows, squares, bounds, nearest)
        nearest = torch.minimum(nearest, distances)
        bounds[best] = -torch.inf
        picks.append(best)
        watch.step("picking", len(picks), count)
    return np.array(picks, dtype=np.int64)


def nearest_picks(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    picks: NDArray[np.int64],
    *,
    device: str | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.int64]:
    """Which pick stands for each row: the nearest (ties: the first picked); a pick stands for itself. Shape (n,).

    Args:
        sketches: Shape (n, p), as for `select`.
        picks: Row numbers, shape (k,).
        device: As in `SelectionConfig`.
        should_stop: As for `select`.
    """
    rows, watch = Sketches(sketches, device), Watch(None, should_stop)
    squares = rows.squared_norms(watch)
    nearest = torch.full((rows.n,), torch.inf, dtype=torch.float64, device=rows.device)
    owner = torch.zeros(rows.n, dtype=torch.int64, device=rows.device)
    for start in range(0, len(picks), _TOGETHER):
        part = torch.from_numpy(picks[start : start + _TOGETHER])
        distances, first = _distances(rows, squares, part).min(dim=0)
        nearer = distances < nearest
        owner[nearer] = first[nearer] + start
        nearest = torch.minimum(nearest, distances)
        watch.step("certifying", start + len(part), len(picks))
    found = owner.cpu().numpy()
    found[picks] = np.arange(len(picks))
    return found


def _leader(rows: Sketches, squares: Tensor, bounds: Tensor, nearest: Tensor) -> tuple[int, Tensor]:
    """The row of the largest gain (ties: the lowest number) and its distances; `bounds` are brought up to date."""
    fresh = torch.zeros(rows.n, dtype=torch.bool, device=rows.device)
    kept: dict[int, Tensor] = {}
    while True:
        best = int(bounds.argmax())
        if fresh[best]:
            return best, kept[best]
        leaders = bounds.masked_fill(fresh, -torch.inf).topk(min(_TOGETHER, rows.n)).indices
        leaders = leaders[bounds[leaders] > -torch.inf].sort().values
        distances = _distances(rows, squares, leaders)
        bounds[leaders] = (nearest - distances).clamp_min(0.0).sum(dim=1)
        fresh[leaders] = True
        leading = int(bounds[leaders].argmax())
        kept[int(leaders[leading])] = distances[leading]


def _of_all(rows: Sketches, squares: Tensor, what: Callable[[Tensor], Tensor], watch: Watch) -> Tensor:
    """Something of the distances of each row to all rows, shape (n,)."""
    found = torch.empty(rows.n, dtype=torch.float64, device=rows.device)
    for start in range(0, rows.n, _TOGETHER):
        part = torch.arange(start, min(start + _TOGETHER, rows.n))
        found[start : start + len(part)] = what(_distances(rows, squares, part))
        watch.step("scanning", start + len(part), rows.n)
    return found


def _distances(rows: Sketches, squares: Tensor, some: Tensor) -> Tensor:
    """Euclidean distances of some rows to all, shape (m, n), float64."""
    chosen = rows.gather(some, torch.float64)
    found = torch.empty(len(some), rows.n, dtype=torch.float64, device=rows.device)
    for where, tile in rows.tiles(torch.float64):
        found[:, where] = squares[where] - 2 * chosen @ tile.T
    found += squares[some.to(squares.device)].unsqueeze(1)
    return found.clamp_min_(0.0).sqrt_()
