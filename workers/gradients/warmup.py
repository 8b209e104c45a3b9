"""Warm-up: a fresh adapter trained for some steps on a sample of the dataset, so that both A and B have gradients.

The steps are those of an ordinary LoRA fine-tuning: A with entries +-1/sqrt(3 in) (PEFT's variance, with signs that are
the same on every machine), B = 0, y = W x + 2 B A x, Adam without weight decay at a constant learning rate, 8 rows a
step, the mean loss of their response tokens. The gradients come from the same passes as the sketches, so a step has the
memory bound of a batch, whatever its rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from workers.gradients.adam_direction import BETAS, EPSILON
from workers.gradients.adapter import Adapter, LowRank, part_a, part_b
from workers.gradients.passes import Passes, never
from workers.gradients.second_moments import check_size
from workers.gradients.sketch import adapter_signs
from workers.gradients.taps import make_taps
from workers.gradients.targets import target_layers
from workers.models.errors import ModelError
from workers.selection.seeds import random_permutation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from workers.data.samples import Sample, Samples
    from workers.gradients.batches import Batch
    from workers.gradients.config import GradientConfig

    Parameters = dict[str, torch.Tensor]

BATCH_ROWS = 8
SCALE = 2.0
"""Lora_alpha / r, as most recipes have it."""


def warm_up(
    passes: Passes, config: GradientConfig, samples: Samples, poll: Callable[[], None] = never
) -> tuple[Adapter, Parameters]:
    """Train a fresh adapter for `config.warmup_steps` steps.

    Args:
        passes: Of the model, with losses summed over tokens.
        config: Rank, layers, steps, learning rate and seed.
        samples: The dataset's samples; each step takes some by their numbers.
        poll: Called at every layer; what it raises ends the work.

    Returns:
        The adapter, and Adam's second moments (bias corrected) by the gradients' names; float32, on the CPU.

    Raises:
        ModelError: No step had a finite gradient.
    """
    training = Training(passes, config)
    order = random_permutation(len(samples), seed=config.seed, role="warmup/rows", layer="")
    for step in range(config.warmup_steps):
        rows = [samples[int(row)] for row in _rows_of(order, step)]
        training.step(rows, config.warmup_learning_rate, poll)
    if not training.steps:
        raise ModelError(
            f"gradients.warmup_steps: none of {config.warmup_steps} steps had a finite gradient: use float32, or leave "
            "the warm-up out"
        )
    return training.adapter(), training.second_moments()


class Training:
    """A fresh adapter that is trained step by step."""

    def __init__(self, passes: Passes, config: GradientConfig, weight_decay: float = 0.0) -> None:
        """Begin with A of random signs and B = 0.

        Args:
            passes: Of the model, with losses summed over tokens.
            config: Rank, layers and seed.
            weight_decay: Of AdamW: what a step takes off the parameters besides, as a share of the learning rate.
        """
        self._passes, self._config = passes, config
        self._layers = target_layers(passes.model, config)
        self._parameters: Parameters = {}
        for name, layer in self._layers.items():
            signs = adapter_signs(name, layer.in_features, config.rank, config.seed).to(layer.device).float()
            self._parameters[part_a(name)] = signs / math.sqrt(3 * layer.in_features)
            self._parameters[part_b(name)] = torch.zeros(layer.out_features, config.rank, device=layer.device)
        self._adam = _Adam(self._parameters, weight_decay)

    @property
    def steps(self) -> int:
        """Steps so far; one whose gradient was not finite does not count and changes nothing."""
        return self._adam.steps

    def step(self, rows: Sequence[Sample], learning_rate: float, poll: Callable[[], None] = never) -> float:
        """One step on the mean loss of the rows' response tokens.

        Args:
            rows: The batch.
            learning_rate: Of this step.
            poll: Called at every layer; what it raises ends the work.

        Returns:
            That loss before the step, in nats; NaN where it has no finite gradient and there was no step.
        """
        adapter = _adapter(self._layers, self._parameters)
        gradients, loss = _mean_gradient(self._passes, self._config, adapter, rows, poll)
        if not bool(torch.stack([torch.isfinite(gradient).all() for gradient in gradients.values()]).all()):
            return math.nan
        self._adam.step(gradients, learning_rate)
        return loss

    def go_on(
        self, adapter: Adapter, first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], steps: int
    ) -> None:
        """Take up a training of the same layers and rank where `adapter`, `moments` and `steps` told of it."""
        for layer, low_rank in adapter.layers.items():
            self._parameters[part_a(layer)].copy_(low_rank.down)
            self._parameters[part_b(layer)].copy_(low_rank.up)
        for part in self._parameters:
            self._adam.first[part].copy_(first[part])
            self._adam.second[part].copy_(second[part])
        self._adam.steps = steps

    def adapter(self) -> Adapter:
        """The adapter as it is now, on the CPU."""
        return _adapter(self._layers, {part: values.cpu().clone() for part, values in self._parameters.items()})

    def second_moments(self) -> Parameters:
        """Adam's second moments, bias corrected, by the gradients' names; float32, on the CPU."""
        return {part: values.cpu() for part, values in self._adam.second_moments().items()}

    def moments(self) -> tuple[Parameters, Parameters]:
        """Adam's first and second moments, not bias corrected, likewise."""
        first, second = self._adam.first, self._adam.second
        return (
            {part: values.cpu().clone() for part, values in first.items()},
            {part: values.cpu().clone() for part, values in second.items()},
        )


class _Adam:
    """AdamW (Loshchilov and Hutter, 2019) over named tensors, which it changes in place; without decay it is Adam."""

    def __init__(self, parameters: Parameters, weight_decay: float) -> None:
        self.steps = 0
        self._parameters, self._decay = parameters, weight_decay
        self.first = {part: torch.zeros_like(values) for part, values in parameters.items()}
        self.second = {part: torch.zeros_like(values) for part, values in parameters.items()}

    def step(self, gradients: Parameters, learning_rate: float) -> None:
        self.steps += 1
        for part, gradient in gradients.items():
            self.first[part].lerp_(gradient, 1 - BETAS[0])
            self.second[part].lerp_(gradient.square(), 1 - BETAS[1])
        second = self.second_moments()
        for part, values in self._parameters.items():
            first = self.first[part] / (1 - BETAS[0] ** self.steps)
            if self._decay:
                values.mul_(1 - learning_rate * self._decay)
            values.sub_(learning_rate * first / (second[part].sqrt() + EPSILON))

    def second_moments(self) -> Parameters:
        return {part: moment / (1 - BETAS[1] ** self.steps) for part, moment in self.second.items()}


def _adapter(names: Iterable[str], parameters: Parameters) -> Adapter:
    return Adapter({name: LowRank(parameters[part_a(name)], parameters[part_b(name)], SCALE) for name in names})


def _rows_of(order: NDArray[np.int64], step: int) -> list[int]:
    """The rows of a step: the next ones of the permutation, from its beginning again when it is through."""
    size = min(BATCH_ROWS, order.size)
    return [int(order[(step * size + place) % order.size]) for place in range(size)]


def _mean_gradient(
    passes: Passes, config: GradientConfig, adapter: Adapter, samples: Sequence[Sample], poll: Callable[[], None]
) -> tuple[Parameters, float]:
    """The gradient of the mean loss of the samples' response tokens, by name, float32, and that loss, in nats."""
    taps = make_taps(passes.model, config, adapter, sketched=False)
    folds = {part: fold for tap in taps.values() for part, fold in tap.folds.items()}
    check_size(folds)
    total = {
        part: torch.zeros(fold.shape, device=tap.layer.device)
        for tap in taps.values()
        for part, fold in tap.folds.items()
    }

    summed = 0.0

    def run(batch: Batch) -> None:
        nonlocal summed
        found: Parameters = {}

        def receive(part: str, u: torch.Tensor, d: torch.Tensor) -> None:
            gradient = folds[part].scale * (d.float().flatten(0, 1).T @ u.float().flatten(0, 1))
            found[part] = found[part] + gradient if part in found else gradient  # a layer may be used twice

        losses = passes.run(batch, taps, receive, poll)
        for part, gradient in found.items():
            total[part] += gradient
        summed += float(batch.summed(losses).double().sum())

    passes.each(samples, run, poll)
    labels = sum(sample.loss_tokens for sample in samples)
    return {part: gradient / labels for part, gradient in total.items()}, summed / labels
