"""A tokenised training sample: what `workers.data` makes and `workers.gradients` differentiates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of the dataset, ready for the model.

    Attributes:
        row: The row's 0-based number in the dataset file; what a job's result calls an index.
        input_ids: Token ids, shape (T,), special tokens included, no padding.
        loss_mask: Shape (T,), bool; True where the token belongs to a response. The loss of sample i is
            the cross-entropy of the True tokens given everything before them.
        rejected: Of a pair of responses, the one that is not preferred; `input_ids` is then the preferred one.
    """

    row: int
    input_ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    rejected: Sample | None = None

    @property
    def tokens(self) -> int:
        """Length T in tokens; of a pair, both."""
        return int(self.input_ids.shape[0]) + (0 if self.rejected is None else self.rejected.tokens)

    @property
    def loss_tokens(self) -> int:
        """Number of tokens that carry loss; a token at position 0 has no prefix and carries none."""
        return int(self.loss_mask[1:].sum())


@dataclass(frozen=True, slots=True, eq=False)
class WholeRows:
    """Samples whose every token carries loss, the prompt's too.

    Attributes:
        samples: As they are learned elsewhere.
    """

    samples: Samples

    def __len__(self) -> int:
        """How many there are."""
        return len(self.samples)

    def __getitem__(self, number: int, /) -> Sample:
        """One of them."""
        sample = self.samples[number]
        whole = replace(sample, loss_mask=np.ones_like(sample.loss_mask))
        if sample.rejected is None:
            return whole
        return replace(whole, rejected=replace(sample.rejected, loss_mask=np.ones_like(sample.rejected.loss_mask)))


def learned(samples: Samples, loss_over: Literal["response", "row"]) -> Samples:
    """Samples with loss on the tokens that `gradients.loss_over` names."""
    return WholeRows(samples) if loss_over == "row" else samples


class Samples(Protocol):
    """Samples by their numbers: a list, or a corpus whose samples stay on disk until they are asked for."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, number: int, /) -> Sample:
        """One of them."""
        ...
