"""Which rows each step of a run trains on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from workers.selection.seeds import random_permutation

if TYPE_CHECKING:
    from numpy.typing import NDArray


def count_steps(tokens: int, epochs: int, batch_tokens: int) -> int:
    """Steps of so many epochs over rows with so many tokens, if a step has `batch_tokens` on average."""
    return max(1, round(tokens * epochs / batch_tokens))


def rows_of_steps(rows: int, *, epochs: int, steps: int, seed: int) -> list[NDArray[np.int64]]:
    """The rows of every step: each epoch is a permutation of all rows, and the steps share the epochs' rows evenly.

    Runs with as many rows, epochs and steps see the same places in the same order.

    Args:
        rows: How many rows the run has.
        epochs: How often each is seen.
        steps: How many there are to be; fewer if there are not as many rows.
        seed: Of the order.

    Returns:
        Places among the run's rows, step by step; the steps differ by one row at most.
    """
    order = np.concatenate(
        [random_permutation(rows, seed=seed, role="train/order", layer=str(n)) for n in range(epochs)]
    )
    return np.array_split(order, min(steps, len(order)))


def linear_rates(steps: int, *, largest: float, warmup_ratio: float) -> NDArray[np.float64]:
    """The learning rate of each step, shape (steps,): in a line up to `largest`, then in a line down towards 0.

    No step has the rate 0. It rises over the first `warmup_ratio` of the steps, rounded up.
    """
    rising = math.ceil(round(warmup_ratio * steps, 6))
    step = np.arange(steps)
    up = (step + 1) / max(1, rising)
    down = (steps - step) / max(1, steps - rising)
    rates: NDArray[np.float64] = largest * np.where(step < rising, up, down)
    return rates
