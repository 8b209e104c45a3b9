"""Why a row was not picked: what it would add at the end, and the pick that it is most like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MOST_WORK = 5 * 10**11
"""Most multiplications; 50,000 rows and 2,000 picks, of 2,048 numbers each, took 27 seconds on one core."""
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, eq=False)
class PassedOver:
    """Figures of n candidates, NaN for picks.

    Attributes:
        gain: What each would add to the whole selection, in nats, (n,), float64, at least 0.
        nearest: Place in the order of picking of the pick with the largest cosine, (n,), float64; NaN for a zero row.
        cosine: That cosine, (n,), float64; NaN for a zero row.
    """

    gain: NDArray[np.float64]
    nearest: NDArray[np.float64]
    cosine: NDArray[np.float64]


def passed_over(
    values: NDArray[np.float32], picked: NDArray[np.int64], alpha: float, should_stop: Callable[[], bool]
) -> PassedOver | None:
    """What the candidates that were not picked would add, and what they are like.

    It costs n * k * (p + k) multiplications; None where these are more than `MOST_WORK`.

    Args:
        values: What was selected from, shape (n, p); may be memory-mapped, is read once.
        picked: Places of the picks in the order of picking, shape (k,).
        alpha: The scale of the information.
        should_stop: Asked now and then; True gives up.

    Raises:
        Stopped: `should_stop` said so.
    """
    (n, p), k = values.shape, len(picked)
    if n * k * (p + k) > MOST_WORK:
        return None
    chosen = torch.from_numpy(np.ascontiguousarray(values[picked]))
    lengths = torch.linalg.vector_norm(chosen, dim=1)
    gram = (chosen @ chosen.T).to(torch.float64)
    factor = torch.linalg.cholesky(torch.eye(k, dtype=torch.float64) + alpha * gram)
    gain, nearest, cosine = (np.full(n, np.nan) for _ in range(3))
    for start in range(0, n, ROWS_AT_ONCE):
        if should_stop():
            raise Stopped
        part = slice(start, min(start + ROWS_AT_ONCE, n))
        rows = torch.from_numpy(np.array(values[part]))
        products = rows @ chosen.T
        covered = torch.linalg.solve_triangular(factor, products.T.to(torch.float64), upper=False).square().sum(dim=0)
        squares = rows.to(torch.float64).square().sum(dim=1)
        gain[part] = torch.log1p((alpha * squares - alpha**2 * covered).clamp_min(0.0)).numpy()
        cosines = (products / (squares.sqrt().to(products.dtype)[:, None] * lengths)).nan_to_num(-1.0, -1.0, -1.0)
        best = cosines.max(dim=1)
        known = squares.numpy() > 0
        nearest[part] = np.where(known, best.indices.numpy(), np.nan)
        cosine[part] = np.where(known, np.clip(best.values.numpy(), -1.0, 1.0), np.nan)
    for figure in (gain, nearest, cosine):
        figure[picked] = np.nan
    return PassedOver(gain, nearest, cosine)
