"""Which samples share a forward pass, and the tensors that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from workers.data.samples import Sample
    from workers.gradients.config import LossNormalization


HALF_PRECISION_STEP = 32
"""Positions; see `padded_to`."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples padded to one length T, with N labels in all and at most L in one sample.

    Attributes:
        indices: Place of each row in the caller's sequence, (B,), int64.
        input_ids: (B, T), int64. A sample's inputs end before its last label: what comes after can't matter.
        label_row: Row in the batch of each label, (N,), int64.
        label_position: Input position whose output predicts the label, (N,), int64.
        label_slot: The label's number within its sample, (N,), int64.
        targets: The token to predict, (N,), int64.
        weights: What the label's loss is multiplied with, (N,), float32.
        label_width: L.
        tokens: Tokens of the samples as given, padding not counted.
    """

    indices: torch.Tensor
    input_ids: torch.Tensor
    label_row: torch.Tensor
    label_position: torch.Tensor
    label_slot: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    label_width: int
    tokens: int

    def frame(self, values: torch.Tensor) -> torch.Tensor:
        """Lay values of labels out by sample: (N, ...) -> (B, L, ...), 0 where a sample has fewer labels."""
        framed = values.new_zeros((self.input_ids.shape[0], self.label_width, *values.shape[1:]))
        framed[self.label_row, self.label_slot] = values
        return framed

    def summed(self, losses: torch.Tensor) -> torch.Tensor:
        """The loss of each sample, (B,): those of its labels, (N,), by their weights."""
        return self.frame(losses * self.weights).sum(1)

    def last_of(self, kinds: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Of the losses of labels, (N,), that of each sample's last label of some kinds, (B,); NaN where it has none.

        Args:
            kinds: Token ids, (k,), int64.
            losses: Of the labels.
        """
        places = self.frame(torch.isin(self.targets, kinds) * (self.label_slot + 1)).amax(1)  # 0: none
        found = self.frame(losses).gather(1, (places - 1).clamp_min(0)[:, None])[:, 0]
        return torch.where(places > 0, found, torch.nan)


def padded_to(model: PreTrainedModel) -> int:
    """What the length of a batch is a multiple of.

    In bfloat16 the kernels for other lengths sum in another order, and a last bit that falls the other way is 0.4% of a
    number: lengths in steps keep a sample's own numbers the same whatever its neighbours. In float32 it is 1e-7.
    """
    return HALF_PRECISION_STEP if model.dtype == torch.bfloat16 else 1


def input_lengths(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Number of positions that each sample's forward pass needs: everything before its last label, (n,).

    Raises:
        ValueError: A sample has no token that carries loss, so that it has no gradient.
    """
    lengths = np.empty(len(samples), dtype=np.int64)
    for index, sample in enumerate(samples):
        labelled = np.flatnonzero(sample.loss_mask[1:])
        if labelled.size == 0:
            raise ValueError(f"row {sample.row} has no response token to take a loss of")
        lengths[index] = labelled[-1] + 1
    return lengths


def plan_batches(
    lengths: NDArray[np.int64], indices: NDArray[np.int64], token_budget: int, short: int | None = None
) -> list[NDArray[np.int64]]:
    """Group samples of like length so that rows x longest stays within the budget.

    Longest first, so that a budget too large shows at once. A sample longer than the budget goes alone.

    Args:
        lengths: Positions of every sample, (n,).
        indices: The samples to plan for.
        token_budget: Positions of one batch, padding included.
        short: A length that no batch crosses; see `workers.models.architecture.short_length`.

    Returns:
        The batches, each an array of indices.
    """
    if short is not None:
        beyond = lengths[indices] > short
        return [
            batch for part in (indices[beyond], indices[~beyond]) for batch in plan_batches(lengths, part, token_budget)
        ]
    order = indices[np.lexsort((indices, -lengths[indices]))]
    batches: list[NDArray[np.int64]] = []
    start = 0
    while start < order.size:
        rows = max(1, token_budget // int(lengths[order[start]]))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def collate(
    samples: Sequence[Sample],
    indices: NDArray[np.int64],
    *,
    loss_normalization: LossNormalization,
    device: torch.device,
    width: int | None = None,
) -> Batch:
    """Pad the chosen samples on the right and move them to the device.

    No attention mask is made: under causal attention a position never sees what is to its right, so padding
    on the right can't reach a sample. It repeats the sample's own first token, so that nothing of a neighbour
    or of the tokenizer gets into the row.
    """
    chosen = [samples[index] for index in indices]
    labels = [np.flatnonzero(sample.loss_mask[1:]) for sample in chosen]
    counts = np.array([label.size for label in labels], dtype=np.int64)
    width = max(width or 0, *(int(label[-1]) + 1 for label in labels))
    input_ids = np.empty((len(chosen), width), dtype=np.int64)
    for line, sample, label in zip(input_ids, chosen, labels, strict=True):
        length = int(label[-1]) + 1
        line[:length] = sample.input_ids[:length]
        line[length:] = sample.input_ids[0]
    targets = [sample.input_ids[label + 1] for sample, label in zip(chosen, labels, strict=True)]
    weights = 1.0 / counts if loss_normalization == "mean" else np.ones(len(chosen))
    return Batch(
        indices=_moved(indices, device),
        input_ids=_moved(input_ids, device),
        label_row=_moved(np.repeat(np.arange(len(chosen)), counts), device),
        label_position=_moved(np.concatenate(labels), device),
        label_slot=_moved(np.concatenate([np.arange(count) for count in counts]), device),
        targets=_moved(np.concatenate(targets).astype(np.int64), device),
        weights=_moved(np.repeat(weights, counts).astype(np.float32), device),
        label_width=int(counts.max()),
        tokens=sum(sample.tokens for sample in chosen),
    )


def _moved(array: NDArray[np.int64] | NDArray[np.float32], device: torch.device) -> torch.Tensor:
    """The array on the device; through pinned memory, so that the copy to a GPU does not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
