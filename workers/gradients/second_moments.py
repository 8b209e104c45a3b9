"""Second moments of gradients, entry by entry: what Adam divides by, and what a preconditioned sketch divides by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from workers.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from workers.data.samples import Sample
    from workers.gradients.batches import Batch
    from workers.gradients.passes import Passes
    from workers.gradients.sketch import LayerFold
    from workers.gradients.tap import Tap

DAMPING = 1e-3
"""Of the root of a gradient's mean second moment; below that an entry's own moment is not told from 0."""
MOST_MOMENTS = 1 << 28
"""Entries of all gradients whose moments are kept: 1 GiB in float32."""


def mean_squares(
    passes: Passes, taps: Mapping[str, Tap], samples: Sequence[Sample], poll: Callable[[], None] | None = None
) -> dict[str, torch.Tensor]:
    """The mean of the squared per-sample gradients, (a, b) float32 by the gradients' names.

    A sample whose gradient is not finite at a layer counts for nothing there.

    Args:
        passes: Of the model.
        taps: The layers, with whole gradients.
        samples: What to take the mean over.
        poll: Called at every layer; what it raises ends the work.

    Raises:
        ModelError: There are more entries than may be kept, a layer is used more than once in a pass, or no sample has
            a finite gradient.
    """
    folds = {part: fold for tap in taps.values() for part, fold in tap.folds.items()}
    check_size(folds)
    devices = {part: tap.layer.device for tap in taps.values() for part in tap.folds}
    experts = {part for tap in taps.values() if tap.layer.weights for part in tap.folds}
    sums = {part: torch.zeros(fold.shape, device=devices[part]) for part, fold in folds.items()}
    counts = {part: torch.zeros((), device=devices[part]) for part in folds}
    reached: set[str] = set()

    def run(batch: Batch) -> None:
        found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

        def receive(part: str, u: torch.Tensor, d: torch.Tensor) -> None:
            if part in found:  # the square of its sum is not the sum of its squares
                raise ModelError(
                    f"gradients.preconditioner: the model uses {part} more than once in a pass: choose "
                    "gradients.layers without it, or preconditioner none"
                )
            found[part] = _sum_of_squares(folds[part], u, d)

        passes.run(batch, taps, receive, poll)
        for part, (squares, count) in found.items():
            sums[part] += squares
            counts[part] += count
            reached.add(part)

    passes.each(samples, run, poll)
    for part, count in counts.items():
        if not float(count) and part in experts - reached:
            counts[part] = torch.ones_like(count)  # no row was routed there: its moments are 0
        elif not float(count):
            raise ModelError(
                f"gradients.preconditioner: none of {len(samples)} rows has a finite gradient at {part}: use float32, "
                "or another model"
            )
    return {part: total / counts[part] for part, total in sums.items()}


def check_size(folds: Mapping[str, LayerFold]) -> None:
    """Refuse to keep the moments of gradients that are too large.

    Raises:
        ModelError: The message says how large they may be.
    """
    entries = sum(fold.shape[0] * fold.shape[1] for fold in folds.values())
    if entries > MOST_MOMENTS:
        raise ModelError(
            f"gradients.preconditioner: adam keeps a number for each of the gradient's {entries:,} entries, and "
            f"{MOST_MOMENTS:,} are the most: choose fewer gradients.layers, or target lora"
        )


def damped_roots(moment: torch.Tensor) -> torch.Tensor:
    """What the entries of a gradient are multiplied with: 1 / (sqrt(v) + DAMPING sqrt(mean v)), as v, (a, b).

    Where all of v is 0 so is the gradient, and it is left alone.
    """
    mean = moment.mean()
    return torch.where(mean > 0, 1.0 / (moment.sqrt() + DAMPING * mean.sqrt()), torch.ones_like(moment))


def _sum_of_squares(fold: LayerFold, u: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Over the rows of a batch that are finite; and their number."""
    squares, count = torch.zeros(fold.shape, device=u.device), torch.zeros((), device=u.device)
    for part in fold.in_turns(u.shape[0]):
        gradients = fold.gradients(u[part], d[part])
        finite = torch.isfinite(gradients).flatten(1).all(1)
        squares += torch.where(finite[:, None, None], gradients, 0.0).square_().sum(0)
        count += finite.sum()
    return squares, count
