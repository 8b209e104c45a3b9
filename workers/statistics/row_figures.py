"""Figures of each row that cost no pass of their own, the filters on them, and how much a row looks wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from app.core.contracts.selection_request import Bounds, Filters, Normalize

TILE_BYTES = 64 << 20
"""Sketches that are worked on in float64 at one time."""
CLIPPED_AT = 0.5
"""Quantile of the lengths that ``clip`` shortens to if none is named: the median."""


@dataclass(frozen=True, slots=True, eq=False)
class RowFigures:
    """Figures of m rows.

    Attributes:
        loss: Mean loss a of a response token given the prompt, in nats, (m,), float64.
        norm: Length of the gradient's sketch, (m,), float64.
        cosine: Cosine of the sketch with the mean of all sketches, 0 where either is zero, (m,), float64.
        ifd: a / b, with b the loss without the prompt, (m,), float64; NaN where b was not taken, is 0 or not finite.
        end_loss: Loss of the token that ends the response, in nats, (m,), float64; NaN where none does.
    """

    loss: NDArray[np.float64]
    norm: NDArray[np.float64]
    cosine: NDArray[np.float64]
    ifd: NDArray[np.float64]
    end_loss: NDArray[np.float64]

    def of(self, name: str) -> NDArray[np.float64]:
        """A figure by its name in a request."""
        found: NDArray[np.float64] = getattr(self, name)
        return found


def row_figures(
    values: NDArray[np.float32],
    token_losses: NDArray[np.float32],
    unprompted: NDArray[np.float32],
    end_losses: NDArray[np.float32],
) -> RowFigures:
    """The figures of all rows that have a finite gradient.

    Args:
        values: Their sketches, shape (m, p).
        token_losses: Mean loss of a response token, in nats, (m,).
        unprompted: The same without the prompt, NaN where it was not taken, (m,).
        end_losses: Loss of the token that ends the response, NaN where none does, (m,).
    """
    count, dim = values.shape
    norms, cosines, total = np.empty(count), np.zeros(count), np.zeros(dim)
    for part in _tiles(count, dim):
        tile = values[part].astype(np.float64)
        norms[part] = np.linalg.norm(tile, axis=1)
        total += tile.sum(axis=0)
    length = np.linalg.norm(total)
    if length > 0:
        direction = total / length
        for part in _tiles(count, dim):
            along, norm = values[part].astype(np.float64) @ direction, norms[part]
            np.divide(along, norm, out=cosines[part], where=norm > 0)
    loss, alone = token_losses.astype(np.float64), unprompted.astype(np.float64)
    ifd = np.full(count, np.nan)
    np.divide(loss, alone, out=ifd, where=np.isfinite(alone) & (alone > 0))
    return RowFigures(loss, norms, np.clip(cosines, -1.0, 1.0), ifd, end_losses.astype(np.float64))


def dropped_by(figures: RowFigures, filters: Filters) -> dict[str, NDArray[np.int64]]:
    """Which rows the filters drop, by the bound that each is beyond; a row beyond several counts with the first.

    A row whose figure is not known stays. Quantiles are of the rows whose figure is known, by the inverse of the
    distribution function: `max_quantile` 0.95 keeps at least 95% of these rows.

    Returns:
        Places among the rows, ascending, int64, by reasons like ``ifd_max`` or ``loss_max_quantile``.
    """
    dropped: dict[str, NDArray[np.int64]] = {}
    stays = np.ones(len(figures.loss), dtype=np.bool_)
    for name in type(filters).model_fields:
        bounds: Bounds | None = getattr(filters, name)
        if bounds is None:
            continue
        for kind, beyond in _beyond(figures.of(name), bounds):
            goes = beyond & stays
            if goes.any():
                dropped[f"{name}_{kind}"] = np.flatnonzero(goes)
            stays &= ~goes
    return dropped


def length_factors(norms: NDArray[np.float64], normalize: Normalize) -> NDArray[np.float64] | None:
    """What each sketch is multiplied with, (m,), float64; None where nothing changes.

    Args:
        norms: Lengths of the sketches, (m,).
        normalize: As in a request. The quantile of ``clip`` is that of the lengths over zero, between two of them where
            it falls there, as a median is.
    """
    if normalize == "none":
        return None
    if normalize == "unit":
        return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    longer = norms[norms > 0]
    if not len(longer):
        return None
    quantile = CLIPPED_AT if isinstance(normalize, str) else normalize.clip
    limit = np.quantile(longer, quantile)
    return np.divide(limit, norms, out=np.ones_like(norms), where=norms > limit)


def kept_and_scaled(
    values: NDArray[np.float32], keep: NDArray[np.int64], factors: NDArray[np.float64] | None
) -> NDArray[np.float32]:
    """Some of the rows, each multiplied with its factor, in the memory that all were in.

    Args:
        values: Shape (m, p); overwritten.
        keep: Places of the rows that stay, ascending, shape (k,), int64.
        factors: Of all rows, shape (m,); None leaves the lengths.

    Returns:
        Shape (k, p), read-only: the beginning of `values`.
    """
    for part in _tiles(len(keep), values.shape[1]):
        rows = keep[part]  # never before part's own places, so that nothing is overwritten before it is read
        values[part] = values[rows] if factors is None else values[rows] * factors[rows, None]
    found = values[: len(keep)]
    found.flags.writeable = False
    return found


def _beyond(figure: NDArray[np.float64], bounds: Bounds) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    known = figure[~np.isnan(figure)]
    for kind, limit in bounds.model_dump(exclude_none=True).items():
        at = limit
        if kind.endswith("_quantile"):
            if not len(known):
                continue
            at = np.quantile(known, limit, method="inverted_cdf")
        yield kind, (figure < at if kind.startswith("min") else figure > at)


def _tiles(count: int, dim: int) -> Iterator[slice]:
    height = max(1, TILE_BYTES // (8 * max(1, dim)))
    return (slice(start, min(start + height, count)) for start in range(0, count, height))
