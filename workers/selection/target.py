"""Selecting for a target: a metric that counts what its gradients span, and prices for pulling against it.

F is blind to signs, so direction comes in as a price that does not depend on the set. Formulas: docs/selection.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.sketches import Sketches, SketchShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A mean of unit rows that is shorter has no direction: what is left of rows that cancel is rounding.
_VANISHED = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """M = ((1 - w) I + w C)^(1/2), C = p sum_j u_j u_j^T / q over the q unit target rows u_j, as c I + V^T diag(s) V.

    Attributes:
        base: c.
        directions: V, the directions that the target spans, shape (r, p), r <= min(q, p), float64.
        stretch: s, shape (r,), float64.
    """

    base: float
    directions: NDArray[np.float64]
    stretch: NDArray[np.float64]

    def of(
        self,
        sketches: Any,  # noqa: ANN401 - numpy or torch
        *,
        unit: bool = True,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """M z of every row, shape (n, p), float32, on the host: what to select from.

        Args:
            sketches: Shape (n, p), as for `select`.
            unit: Of each row's direction, z / |z|; on rows as they are the largest norms drown the target.
            out: Where to, shape (n, p); None: a new array in memory.
        """
        rows = Sketches(sketches)
        found = np.empty((rows.n, rows.p), dtype=np.float32) if out is None else out
        directions, stretch = torch.from_numpy(self.directions).to(rows.dtype), torch.from_numpy(self.stretch)
        for where, tile in rows.tiles():
            along = (tile @ directions.T) * stretch.to(tile.dtype)
            turned = self.base * tile + along @ directions
            if unit:
                norms = torch.linalg.vector_norm(tile, dim=1, keepdim=True)
                turned = torch.where(norms > 0, turned / norms, 0.0)
            found[where] = turned.cpu().numpy()
        return found


def metric(target: Any, weight: float) -> Metric:  # noqa: ANN401 - numpy or torch
    """The metric of some target rows.

    Args:
        target: Their sketches, shape (q, p).
        weight: w in [0, 1]: 0 leaves all directions alike, 1 counts those of the target alone.

    Raises:
        SketchShapeError: If no target row has a direction.
        ValueError: If the weight is out of its range.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight is {weight}; it must be in [0, 1]")
    units = _directions(target, "target")
    _, values, directions = np.linalg.svd(units, full_matrices=False)
    kept = values > values[0] * 1e-12
    base = float(np.sqrt(1.0 - weight))
    spread = np.sqrt(1.0 - weight + weight * units.shape[1] * values[kept] ** 2 / len(units))
    return Metric(base, directions[kept], spread - base)


def prices(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    target: Any = None,  # noqa: ANN401
    protect: Any = None,  # noqa: ANN401
    *,
    target_price: float = 0.1,
    protect_price: float = 0.1,
) -> NDArray[np.float64]:
    """What each row's score loses for pulling against the target and against what is to be protected.

    price = target_price max(0, -cos(z, mean u)) + protect_price max(0, -cos(z, mean v)), u and v the unit rows of both.

    Args:
        sketches: Shape (n, p), as for `select`.
        target: Sketches of the target rows, shape (q, p), or None.
        protect: Sketches of the rows to protect, shape (r, p), or None.
        target_price: Nats for the opposite of the target.
        protect_price: Nats for the opposite of what is to be protected.

    Returns:
        Shape (n,), float64, nats, for `Constraints.price`.
    """
    found = np.zeros(len(sketches))
    for others, price, name in ((target, target_price, "target"), (protect, protect_price, "protect")):
        if others is not None:
            found += price * np.maximum(0.0, -cosines(sketches, others, name))
    return found


def cosines(sketches: Any, others: Any, name: str = "target") -> NDArray[np.float64]:  # noqa: ANN401
    """Cosine of each row with the mean direction of others, shape (n,); 0 for zero rows, and if the mean is zero.

    Args:
        sketches: Shape (n, p), as for `select`.
        others: Shape (q, p).
        name: What the others are, for a message.
    """
    rows, mean = Sketches(sketches), _directions(others, name).mean(axis=0)
    length = float(np.linalg.norm(mean))
    found = np.zeros(rows.n)
    if length < _VANISHED:
        return found
    along = torch.from_numpy(mean / length).to(rows.dtype)
    for where, tile in rows.tiles():
        norms = torch.linalg.vector_norm(tile, dim=1).clamp_min(torch.finfo(tile.dtype).tiny)
        found[where] = ((tile @ along) / norms).double().cpu().numpy()
    return found


@dataclass(frozen=True, slots=True)
class Reach:
    """How far some picks reach towards other rows.

    Attributes:
        covered: log det(I + sum (M z)(M z)^T) over the picks' directions with the metric of weight 1, nats: information
            in the directions that the other rows span.
        cosine: Mean cosine of the picks with the mean direction of the other rows.
        directions: How many directions the other rows span.
    """

    covered: float
    cosine: float
    directions: int


def reach(sketches: Any, picks: NDArray[np.int64], others: Any) -> Reach:  # noqa: ANN401
    """Measure some picks against target rows, or against rows to protect.

    Args:
        sketches: Shape (n, p), as for `select`.
        picks: Row numbers, shape (k,), int64, k >= 1.
        others: Shape (q, p).
    """
    rows = Sketches(sketches).gather(torch.from_numpy(picks), torch.float32).cpu().numpy()
    own = metric(others, 1.0)
    turned = own.of(rows).astype(np.float64) @ own.directions.T  # all that M z has lies along these
    covered = np.linalg.slogdet(np.eye(turned.shape[1]) + turned.T @ turned)[1]
    return Reach(float(covered), float(cosines(rows, others).mean()), len(own.directions))


def _directions(rows: Any, name: str) -> NDArray[np.float64]:  # noqa: ANN401
    """Unit rows of those that are not zero, shape (q, p), float64."""
    source = Sketches(rows)
    values = source.gather(torch.arange(source.n), torch.float64).cpu().numpy()
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    usable = (norms[:, 0] > 0) & np.isfinite(norms[:, 0])
    if not usable.any():
        raise SketchShapeError(f"{name} has no row with a direction: its {source.n} sketches are zero or not finite")
    units: NDArray[np.float64] = values[usable] / norms[usable]
    return units
