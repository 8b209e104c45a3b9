"""How a set of gradient sketches pulls with or against its own mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

BLOCK_ROWS = 4096


def mean_cosines(
    values: NDArray[np.float32], rows: NDArray[np.int64], should_stop: Callable[[], bool]
) -> NDArray[np.float64]:
    """Cosine of each row of a set with the mean of the whole set; its conflict is the negative part.

    Args:
        values: All sketches, shape (n, p); may be memory-mapped, is read in blocks, twice.
        rows: The set, as places in `values`, shape (k,).
        should_stop: Asked before each block; True gives up.

    Returns:
        Shape (k,), in [-1, 1], in ascending order of `rows`; 0 where the row or the mean is zero.

    Raises:
        Stopped: `should_stop` said so.
    """
    total = np.zeros(values.shape[1], dtype=np.float64)
    for block in _blocks(values, rows, should_stop):
        total += block.sum(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(total))
    if length == 0:
        return np.zeros(len(rows))
    unit = (total / length).astype(np.float32)
    parts = []
    for block in _blocks(values, rows, should_stop):
        norms = np.linalg.norm(block, axis=1)
        parts.append((block @ unit) / np.where(norms > 0, norms, 1))
    return np.clip(np.concatenate(parts).astype(np.float64), -1.0, 1.0)


def _blocks(
    values: NDArray[np.float32], rows: NDArray[np.int64], should_stop: Callable[[], bool]
) -> Iterator[NDArray[np.float32]]:
    ordered = np.sort(rows)
    for first in range(0, len(ordered), BLOCK_ROWS):
        if should_stop():
            raise Stopped
        yield values[ordered[first : first + BLOCK_ROWS]]
