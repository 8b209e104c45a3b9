"""Pairs of a preferred and another response: the gradient of their DPO loss, out of those of the two responses.

The loss of a pair is -log sigmoid(beta ((l_c - r_c) - (l_r - r_r))), with l the log-probability of the chosen (c) and
the rejected (r) response and r_c, r_r those of the reference (Rafailov et al. 2023, eq. 7). With the model as its own
reference the two differences are 0, so that the loss is log 2 and its gradient -beta/2 (grad l_c - grad l_r): half of
beta times the difference of the gradients of the two negative log-likelihoods. A sketch is linear in the gradient.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from workers.data.samples import Sample
    from workers.gradients.passes import BatchDone

BETA = 0.1
"""The default of the paper's code and of TRL."""


def alone(samples: Sequence[Sample]) -> list[Sample]:
    """Samples with nothing beside them: of a pair the preferred, then the other."""
    flat: list[Sample] = []
    for sample in samples:
        flat += [sample] if sample.rejected is None else [replace(sample, rejected=None), sample.rejected]
    return flat


def dpo(values: torch.Tensor, losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sketches (n, p) and losses (n,) of the DPO loss of n pairs, from those of their 2n responses."""
    difference = (BETA / 2) * (values[::2] - values[1::2])
    return difference, 0 * (losses[::2] + losses[1::2]) + math.log(2)


def by_pairs(on_batch: Callable[[BatchDone], None] | None) -> Callable[[BatchDone], None] | None:
    """Tell of batches of responses as of pairs."""
    if on_batch is None:
        return None
    odd = 0

    def tell(batch: BatchDone) -> None:
        nonlocal odd
        pairs, odd = divmod(batch.samples + odd, 2)
        on_batch(replace(batch, samples=pairs))

    return tell
