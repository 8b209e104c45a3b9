"""Batched forward and backward passes of one model, within a budget of tokens and the memory that there is."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from workers.data.stopping import Stopped
from workers.gradients.batches import Batch, collate, input_lengths, padded_to, plan_batches
from workers.gradients.capture import captured
from workers.gradients.probe import choose_head
from workers.models.architecture import (
    check_length,
    decoder,
    frozen,
    longest_input,
    short_length,
    vocabulary_size,
)
from workers.models.errors import ModelError, SampleTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from workers.data.samples import Sample
    from workers.gradients.config import GradientConfig
    from workers.gradients.sketch import LayerFold
    from workers.gradients.tap import Receive, Tap

POLL_S = 0.5
"""Seconds between two questions to `should_stop`, which may cost a query."""
OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What torch says where it has no class of its own for memory that ran out: the host's, or a CUDA library's."""


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


class Passes:
    """Runs samples through a model, forward and backward. Not for use by two threads at once.

    Attributes:
        model: The model, frozen.
        token_budget: Positions of a batch, padding included; halved where memory runs out.
    """

    def __init__(self, model: PreTrainedModel, config: GradientConfig) -> None:
        """Try the model on a few made-up tokens.

        Raises:
            ModelError: The model can't be differentiated this way; the message says why.
        """
        self.model = frozen(model)
        self.token_budget = config.token_budget
        self._loss_normalization = config.loss_normalization
        self._head_alone = config.target == "last_layer"
        self._head = choose_head(self.model)

    def run(
        self, batch: Batch, taps: Mapping[str, Tap], receive: Receive, poll: Callable[[], None] | None = None
    ) -> torch.Tensor:
        """One forward and backward pass.

        Args:
            batch: The samples.
            taps: The layers by name; for target ``last_layer`` the output head alone.
            receive: Given the factors of every layer's gradients; see `captured`.
            poll: Called at every layer; what it raises ends the pass.

        Returns:
            The loss of each label, weights not applied, (N,) float32.
        """
        with deterministic(self.model.device):
            return self._through(batch, taps, receive, poll or never)

    def losses(self, batch: Batch, taps: Mapping[str, Tap], poll: Callable[[], None] | None = None) -> torch.Tensor:
        """The losses of a forward pass alone, with the adapters that the taps bring; (B,) float32."""
        return batch.summed(self.label_losses(batch, taps, poll))

    def label_losses(
        self, batch: Batch, taps: Mapping[str, Tap], poll: Callable[[], None] | None = None
    ) -> torch.Tensor:
        """Likewise the loss of each label, weights not applied; (N,) float32."""
        with self._forward(batch, taps, poll):
            return self._head.run(batch)

    def states(self, batch: Batch, taps: Mapping[str, Tap], poll: Callable[[], None] | None = None) -> torch.Tensor:
        """Likewise what the last block makes of each position, after the last norm; (B, T, H), in the model's dtype."""
        with self._forward(batch, taps, poll):
            backbone = decoder(self.model)
            if backbone is not self.model:
                made = backbone(input_ids=batch.input_ids, use_cache=False)
                if hasattr(made, "last_hidden_state"):
                    return cast("torch.Tensor", made.last_hidden_state)
            made = self.model(input_ids=batch.input_ids, use_cache=False, output_hidden_states=True)
            return cast("torch.Tensor", made.hidden_states[-1])

    @contextmanager
    def _forward(self, batch: Batch, taps: Mapping[str, Tap], poll: Callable[[], None] | None) -> Iterator[None]:
        """Around a forward pass alone: without gradients, with the adapters that the taps bring."""
        adapted = {name: replace(tap, folds={}) for name, tap in taps.items() if tap.low_rank is not None}
        rows, width = batch.input_ids.shape
        shape = (int(rows), int(width))
        with torch.no_grad(), deterministic(self.model.device), captured(adapted, _nothing, poll or never, shape):
            yield

    def _through(
        self, batch: Batch, taps: Mapping[str, Tap], receive: Receive, poll: Callable[[], None]
    ) -> torch.Tensor:
        """The losses of the labels, (N,)."""
        if self._head_alone:
            ((part, fold),) = [item for tap in taps.values() for item in tap.folds.items()]
            frames = _HeadFactors(batch, fold)
            losses = self._head.run(batch, frames.add)
            receive(part, *frames.framed())
            return losses
        rows, width = batch.input_ids.shape
        with captured(taps, receive, poll, (rows, width)):
            return self._head.run(batch)

    def each(
        self,
        samples: Sequence[Sample],
        run: Callable[[Batch], None],
        poll: Callable[[], None] | None = None,
        on_batch: Callable[[BatchDone], None] | None = None,
        ahead: int = 0,
    ) -> None:
        """Give every sample to `run` once, in batches; out of memory, halve the budget and go on with what is left.

        Args:
            samples: What to run.
            run: May be called again with some of a batch's samples if memory ran out in it: it must change nothing
                of the caller's before it is through.
            poll: Called before every batch; what it raises ends the run.
            on_batch: Called after each batch.
            ahead: Tokens at the end of each sample that the model predicts and does not read, by the caller's doing.

        Raises:
            ValueError: A sample has no response token.
            ModelError: A sample has a token or a length that the model doesn't have.
            SampleTooLarge: A sample alone exhausts the device's memory.
        """
        self._check_tokens(samples, ahead)
        lengths = self._padded(samples, ahead)
        short = short_length(self.model.config)
        pending = plan_batches(lengths, np.arange(len(samples)), self.token_budget, short)
        while pending:
            if poll is not None:
                poll()
            indices = pending[0]
            done = self._try(samples, indices, int(lengths[indices].max()), run)
            if done is not None:
                del pending[0]
                if on_batch is not None:
                    on_batch(done)
                continue
            if indices.size == 1:
                sample = samples[int(indices[0])]
                raise SampleTooLarge(sample.row, sample.tokens)
            self.token_budget = max(1, int(indices.size * lengths[indices].max()) // 2)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            pending = plan_batches(lengths, np.concatenate(pending), self.token_budget, short)

    def _try(
        self, samples: Sequence[Sample], indices: NDArray[np.int64], width: int, run: Callable[[Batch], None]
    ) -> BatchDone | None:
        """Run one batch. None: memory ran out; by the time of the return its tensors are freed."""
        try:
            batch = collate(
                samples,
                indices,
                loss_normalization=self._loss_normalization,
                device=self.model.device,
                width=width,
            )
            run(batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return None
        return BatchDone(len(indices), batch.tokens, batch.input_ids.numel(), self.token_budget)

    def _padded(self, samples: Sequence[Sample], ahead: int) -> NDArray[np.int64]:
        """Lengths as they are computed: in steps, within what the model takes, on the row's own side of longrope's."""
        lengths = input_lengths(samples)
        step, longest = padded_to(self.model), longest_input(self.model.config)
        padded = -(-lengths // step) * step
        padded = padded if longest is None else np.maximum(lengths, np.minimum(padded, longest))
        short = short_length(self.model.config)
        if short is None:
            return padded
        beyond = np.array([sample.tokens - ahead for sample in samples]) > short
        return np.where(beyond, np.maximum(padded, short + 1), np.maximum(lengths, np.minimum(padded, short)))

    def _check_tokens(self, samples: Sequence[Sample], ahead: int) -> None:
        """Refuse what the model has no embedding for, before a GPU turns it into an assertion."""
        vocabulary, longest = vocabulary_size(self.model), longest_input(self.model.config)
        for sample in samples:
            low, high = int(sample.input_ids.min()), int(sample.input_ids.max())
            if low < 0 or high >= vocabulary:
                raise ModelError(
                    f"model.uri: row {sample.row} has token {high if low >= 0 else low}, and the model has "
                    f"{vocabulary} of them: save it with the tokenizer that it was trained with"
                )
            check_length(sample.row, sample.tokens - ahead, longest)


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


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Inside, CUDA takes algorithms that give the same bits on every run where it has them, and warns where not.

    The backward pass of fused attention otherwise adds in whatever order its blocks end. On the CPU nothing changes.
    """
    if device.type != "cuda":
        yield
        return
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before, warn_only=warned)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def stop_poll(should_stop: Callable[[], bool] | None) -> Callable[[], None]:
    """A function that raises `Stopped` once `should_stop` says so, asking it at most every `POLL_S` seconds."""
    if should_stop is None:
        return never
    asked = -float("inf")

    def poll() -> None:
        nonlocal asked
        now = time.monotonic()
        if now - asked >= POLL_S:
            asked = now
            if should_stop():
                raise Stopped

    return poll


def never() -> None:
    """Never stop."""


def _nothing(_part: str, _u: torch.Tensor, _d: torch.Tensor) -> None:
    """Take no factors: a forward pass has none."""


def out_of_memory(error: BaseException) -> bool:
    """Whether the error is the device's or the host's memory running out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error) for words in OUT_OF_MEMORY)
