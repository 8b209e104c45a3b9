"""Per-sample gradients of a language model, sketched during one batched forward and backward pass.

engine = GradientEngine(load_model(path, dtype="float32", device=torch.device("cpu")), GradientConfig())
sketches = engine.sketch(samples)
sketches.values[i] @ sketches.values[j]  # estimates the inner product of the gradients of samples i and j
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from workers.gradients.architecture import frozen, longest_input, vocabulary_size
from workers.gradients.batches import Batch, collate, input_lengths, plan_batches
from workers.gradients.capture import captured
from workers.gradients.errors import SampleTooLarge
from workers.gradients.probe import choose_head
from workers.gradients.sketch import LayerFold, LayerSketch, layer_fold, layer_sketch
from workers.gradients.targets import target_layers
from workers.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from workers.gradients.config import GradientConfig
    from workers.gradients.model import ProxyModel
    from workers.samples import Sample

    Receive = Callable[[str, torch.Tensor, torch.Tensor], None]

POLL_S = 0.5
"""Seconds between two questions to `should_stop`, which may cost a query."""


@dataclass(frozen=True, slots=True)
class BatchDone:
    """What one batch did.

    Attributes:
        samples: Rows of the batch.
        tokens: Their tokens, padding not counted.
        positions: Positions computed, padding included.
        token_budget: The budget in force; lower than the configured one once memory ran out.
    """

    samples: int
    tokens: int
    positions: int
    token_budget: int


@dataclass(frozen=True, slots=True, eq=False)
class Sketches:
    """Sketches of n samples, in the order in which the samples were given.

    Attributes:
        values: (n, sketch_dim), float32. A row that is not finite keeps what the model gave; see `finite`.
        losses: The loss that was differentiated, in nats: the sum or the mean over the response's tokens; (n,),
            float32.
        finite: False where the loss or an entry of the sketch is NaN or infinite; (n,), bool. Such a row must be
            excluded and counted, never used.
    """

    values: NDArray[np.float32]
    losses: NDArray[np.float32]
    finite: NDArray[np.bool_]


class GradientEngine:
    """Sketches samples with one model and one configuration. Not for use by two threads at once."""

    def __init__(self, model: ProxyModel, config: GradientConfig) -> None:
        """Choose the layers, draw their projections, and try the model on a few made-up tokens.

        Raises:
            ModelError: The model can't be differentiated this way; the message says why.
        """
        self.config = config
        self.token_budget = config.token_budget
        self._model = frozen(model.model)
        self._layers = target_layers(self._model, config)
        self._sketches: dict[str, LayerSketch] = {
            name: layer_sketch(name, layer.weight, config) for name, layer in self._layers.items()
        }
        self._head = choose_head(self._model)

    def sketch(
        self,
        samples: Sequence[Sample],
        *,
        on_batch: Callable[[BatchDone], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Sketches:
        """Sketch the gradient of each sample's loss.

        Args:
            samples: Call with a shard's worth: the result, (n, sketch_dim) float32, is held in memory.
            on_batch: Called after each batch.
            should_stop: Asked at most every half second, also inside a batch.

        Raises:
            Stopped: `should_stop` said so.
            ValueError: A sample has no response token, or a token or a length that the model doesn't have.
            SampleTooLarge: A sample alone exhausts the device's memory.
        """
        device, dim = self._model.device, self.config.sketch_dim
        values = torch.zeros((len(samples), dim), dtype=torch.float32, device=device)
        losses = torch.zeros(len(samples), dtype=torch.float32, device=device)
        poll = _stop_poll(should_stop)

        def run(batch: Batch) -> None:
            z = values.new_zeros((batch.input_ids.shape[0], dim))

            def receive(name: str, u: torch.Tensor, d: torch.Tensor) -> None:
                z.add_(self._sketches[name](u, d))

            folds = {name: sketch.fold for name, sketch in self._sketches.items()}
            losses[batch.indices] = self._run(batch, folds, receive, poll)
            values[batch.indices] = z

        self._each_batch(samples, run, poll, on_batch)
        finite = torch.isfinite(values).all(1) & torch.isfinite(losses)
        if self.config.normalize == "unit":
            values /= torch.linalg.vector_norm(values, dim=1, keepdim=True).clamp_min(1e-30)
        return Sketches(values.cpu().numpy(), losses.cpu().numpy(), finite.cpu().numpy())

    def gradients(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """The whole per-sample gradients, for tests and small studies.

        Returns:
            By layer: (n, out, r) for LoRA, the gradient of B; (n, out, in) for the other targets; float32, on the
            CPU. The sketch is a projection of their concatenation (`normalize` apart).
        """
        folds = {
            name: layer_fold(name, layer.weight, self.config, sketched=False) for name, layer in self._layers.items()
        }
        found: dict[str, torch.Tensor] = {}

        def run(batch: Batch) -> None:
            rows: dict[str, torch.Tensor] = {}

            def receive(name: str, u: torch.Tensor, d: torch.Tensor) -> None:
                gradient = folds[name].gradients(u, d).cpu()
                rows[name] = rows[name] + gradient if name in rows else gradient

            self._run(batch, folds, receive, _never)
            for name, gradient in rows.items():
                whole = found.setdefault(name, gradient.new_zeros((len(samples), *gradient.shape[1:])))
                whole[batch.indices.cpu()] = gradient

        self._each_batch(samples, run, _never, None)
        return {name: found[name] for name in self._layers if name in found}

    def _run(
        self, batch: Batch, folds: Mapping[str, LayerFold], receive: Receive, poll: Callable[[], None]
    ) -> torch.Tensor:
        """One forward and backward pass; returns the losses of the batch's samples, (B,)."""
        if self.config.target == "last_layer":
            ((name, fold),) = folds.items()
            frames = _HeadFactors(batch, fold)
            losses = self._head.run(batch, frames.add)
            receive(name, *frames.framed())
        else:
            layers = {name: (layer, folds[name]) for name, layer in self._layers.items()}
            with captured(layers, receive, poll):
                losses = self._head.run(batch)
        return batch.frame(losses * batch.weights).sum(1)

    def _each_batch(
        self,
        samples: Sequence[Sample],
        run: Callable[[Batch], None],
        poll: Callable[[], None],
        on_batch: Callable[[BatchDone], None] | None,
    ) -> None:
        """Run every sample once; out of memory, halve the token budget and go on with what is left."""
        self._check_tokens(samples)
        lengths = input_lengths(samples)
        pending = plan_batches(lengths, np.arange(len(samples)), self.token_budget)
        while pending:
            poll()
            indices = pending[0]
            fits = self._try(samples, indices, run, on_batch)
            if fits:
                del pending[0]
                continue
            if indices.size == 1:
                sample = samples[int(indices[0])]
                raise SampleTooLarge(sample.row, sample.tokens)
            self.token_budget = max(1, int(indices.size * lengths[indices].max()) // 2)
            if self._model.device.type == "cuda":
                torch.cuda.empty_cache()
            pending = plan_batches(lengths, np.concatenate(pending), self.token_budget)

    def _try(
        self,
        samples: Sequence[Sample],
        indices: NDArray[np.int64],
        run: Callable[[Batch], None],
        on_batch: Callable[[BatchDone], None] | None,
    ) -> bool:
        """Run one batch. False: memory ran out; by the time of the return its tensors are freed."""
        try:
            batch = collate(
                samples,
                indices,
                loss_normalization=self.config.loss_normalization,
                device=self._model.device,
            )
            run(batch)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            return False
        if on_batch is not None:
            on_batch(BatchDone(len(indices), batch.tokens, batch.input_ids.numel(), self.token_budget))
        return True

    def _check_tokens(self, samples: Sequence[Sample]) -> None:
        """Refuse what the model has no embedding for, before a GPU turns it into an assertion."""
        vocabulary, longest = vocabulary_size(self._model), longest_input(self._model)
        for sample in samples:
            low, high = int(sample.input_ids.min()), int(sample.input_ids.max())
            if low < 0 or high >= vocabulary:
                raise ValueError(f"row {sample.row}: a token id is outside the model's {vocabulary} tokens")
            if longest is not None and sample.tokens > longest:
                raise ValueError(
                    f"row {sample.row}: {sample.tokens} tokens, but the model takes {longest}: lower max_length"
                )


class _HeadFactors:
    """Collects the folded factors of the output head's gradient, label by label."""

    def __init__(self, batch: Batch, fold: LayerFold) -> None:
        self._batch, self._fold = batch, fold
        self._u: list[torch.Tensor] = []
        self._d: list[torch.Tensor] = []

    def add(self, x: torch.Tensor, delta: torch.Tensor) -> None:
        """Take the head's inputs (C, H) and output gradients (C, V) of the next labels, in order."""
        self._u.append(self._fold.inputs(x))
        self._d.append(self._fold.outputs(delta))

    def framed(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors by sample: u (B, L, b) and d (B, L, a)."""
        return self._batch.frame(torch.cat(self._u)), self._batch.frame(torch.cat(self._d))


def _stop_poll(should_stop: Callable[[], bool] | None) -> Callable[[], None]:
    """A function that raises `Stopped` once `should_stop` says so, asking it at most every `POLL_S` seconds."""
    if should_stop is None:
        return _never
    asked = -float("inf")

    def poll() -> None:
        nonlocal asked
        now = time.monotonic()
        if now - asked >= POLL_S:
            asked = now
            if should_stop():
                raise Stopped

    return poll


def _never() -> None:
    """Never stop."""


def _out_of_memory(error: BaseException) -> bool:
    """Whether the error is the device's or the host's memory running out; CPU torch has no class for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "DefaultCPUAllocator" in str(error)
