"""Per-sample gradients of a language model, sketched during one batched forward and backward pass.

engine = GradientEngine(load_model(path, dtype="float32", device=torch.device("cpu")), GradientConfig())
sketches = engine.sketch(samples)
sketches.values[i] @ sketches.values[j]  # estimates the inner product of the gradients of samples i and j
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from workers.gradients.pairs import alone, by_pairs, dpo
from workers.gradients.passes import Passes, never, stop_poll
from workers.gradients.sketch import LayerSketch, layer_sketch
from workers.gradients.starting_point import FRESH
from workers.gradients.taps import make_taps
from workers.gradients.targets import targets
from workers.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from workers.data.samples import Sample
    from workers.gradients.batches import Batch
    from workers.gradients.config import GradientConfig
    from workers.gradients.passes import BatchDone
    from workers.gradients.starting_point import StartingPoint
    from workers.models.proxy import ProxyModel


@dataclass(frozen=True, slots=True, eq=False)
class Sketches:
    """Sketches of n samples, in the order in which the samples were given.

    Attributes:
        values: (n, sketch_dim), float32. A row that is not finite keeps what the model gave; see `finite`.
        losses: The loss that was differentiated, in nats: the sum or the mean over the response's tokens; (n,),
            float32.
        finite: False where the loss or an entry of the sketch is NaN or infinite; (n,), bool. Such a row must be
            excluded and counted, never used.
        token_losses: Mean loss of a response token, in nats; (n,), float32.
        unprompted: The same of the response without its prompt; NaN where that was not asked for; (n,), float32.
        end_losses: Loss of the token that ends the last response, in nats; NaN where none ends it; (n,), float32.
    """

    values: NDArray[np.float32]
    losses: NDArray[np.float32]
    finite: NDArray[np.bool_]
    token_losses: NDArray[np.float32]
    unprompted: NDArray[np.float32]
    end_losses: NDArray[np.float32]


class GradientEngine:
    """Sketches samples with one model and one configuration. Not for use by two threads at once.

    Attributes:
        config: The configuration.
        left_out: Names of what the model's blocks are made of besides and no gradient is taken of, and of what its
            files hold besides.
    """

    def __init__(self, model: ProxyModel, config: GradientConfig, start: StartingPoint = FRESH) -> None:
        """Choose the layers, draw their projections, and try the model on a few made-up tokens.

        Args:
            model: The proxy.
            config: What to sketch, and how.
            start: The adapter and the second moments that the configuration speaks of.

        Raises:
            ModelError: The model can't be differentiated this way; the message says why.
        """
        start.check(config)
        self.config = config
        self._start = start
        self._passes = Passes(model.model, config)
        self.left_out = (*targets(model.model, config, start.adapter).left_out, *model.unread)
        self._taps = make_taps(model.model, config, start.adapter, sketched=True)
        self._sketches = self._layer_sketches()
        self._ends = _ends(model).to(self._passes.model.device)

    def start_from(self, start: StartingPoint) -> None:
        """Score from another trained adapter on the same layers; the projections stay what they are.

        Args:
            start: Of the same configuration, without second moments.
        """
        start.check(self.config)
        self._start = start
        self._taps = make_taps(self.model, self.config, start.adapter, sketched=True)
        folds = {part: fold for tap in self._taps.values() for part, fold in tap.folds.items()}
        self._sketches = {part: replace(sketch, fold=folds[part]) for part, sketch in self._sketches.items()}

    @property
    def model(self) -> PreTrainedModel:
        """The model, frozen."""
        return self._passes.model

    @property
    def token_budget(self) -> int:
        """The budget in force: the configured one, or what was left of it when memory ran out."""
        return self._passes.token_budget

    def sketch(
        self,
        samples: Sequence[Sample],
        *,
        unprompted: Sequence[Sample] | None = None,
        on_batch: Callable[[BatchDone], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Sketches:
        """Sketch the gradient of each sample's loss; of a pair, that of its DPO loss.

        Args:
            samples: Call with a shard's worth: the result, (n, sketch_dim) float32, is held in memory.
            unprompted: The same samples without their prompts, whose losses a forward pass of its own takes.
            on_batch: Called after each batch of samples.
            should_stop: Asked at most every half second, also inside a batch.

        Raises:
            Stopped: `should_stop` said so.
            ValueError: A sample has no response token.
            ModelError: A sample has a token or a length that the model doesn't have, or Adam's directions are asked for
                of a layer that is used more than once in a pass.
            SampleTooLarge: A sample alone exhausts the device's memory.
        """
        paired = any(sample.rejected is not None for sample in samples)
        values, losses, ends = self._summed(alone(samples), by_pairs(on_batch) if paired else on_batch, should_stop)
        if paired:
            values, losses = dpo(values, losses)
        finite = torch.isfinite(values).all(1) & torch.isfinite(losses)
        on_cpu = losses.cpu().numpy()
        unknown = np.full(len(samples), np.nan, dtype=np.float32)
        taken = unprompted is not None and not paired
        return Sketches(
            values.cpu().numpy(),
            on_cpu,
            finite.cpu().numpy(),
            on_cpu if paired else self._by_token(on_cpu, samples),
            self.losses(unprompted, stop_poll(should_stop)) if taken and unprompted is not None else unknown,
            unknown if paired else ends.cpu().numpy(),
        )

    def _summed(
        self,
        samples: Sequence[Sample],
        on_batch: Callable[[BatchDone], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of samples that have no other beside them: sketches, (n, sketch_dim), losses and losses of the end, (n,)."""
        device, dim = self._passes.model.device, self.config.sketch_dim
        values = torch.zeros((len(samples), dim), dtype=torch.float32, device=device)
        losses, ends = torch.zeros((2, len(samples)), dtype=torch.float32, device=device)
        poll = stop_poll(should_stop)

        def run(batch: Batch) -> None:
            z = values.new_zeros((batch.input_ids.shape[0], dim))
            parts: set[str] = set()

            def receive(part: str, u: torch.Tensor, d: torch.Tensor) -> None:
                self._note(part, parts)
                z.add_(self._sketches[part](u, d).to(device))

            each = self._passes.run(batch, self._taps, receive, poll)
            losses[batch.indices], ends[batch.indices] = batch.summed(each), batch.last_of(self._ends, each)
            values[batch.indices] = z

        self._passes.each(samples, run, poll, on_batch)
        return values, losses, ends

    def _note(self, part: str, parts: set[str]) -> None:
        """Remember that a batch has a gradient's factors.

        Raises:
            ModelError: It has them already, and Adam's direction of a sum is not the sum of Adam's directions.
        """
        if part in parts and self._start.adam is not None:
            raise ModelError(
                f"selection.method: less takes Adam's direction of a row's whole gradient, and the model uses {part} "
                "more than once in a pass: choose gradients.layers without it, or another method"
            )
        parts.add(part)

    def losses(self, samples: Sequence[Sample], poll: Callable[[], None] = never) -> NDArray[np.float32]:
        """Mean loss of a response token of each sample, in nats, by a forward pass alone; (n,), float32.

        Args:
            samples: As for `sketch`, no pairs; the errors are those of `sketch` too.
            poll: Called before every batch; what it raises ends the pass.
        """
        losses = torch.zeros(len(samples), dtype=torch.float32, device=self._passes.model.device)

        def run(batch: Batch) -> None:
            losses[batch.indices] = self._passes.losses(batch, self._taps, poll)

        self._passes.each(samples, run, poll)
        return self._by_token(losses.cpu().numpy(), samples)

    def _by_token(self, losses: NDArray[np.float32], samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Losses of samples as means over their response tokens, whichever of both was differentiated."""
        if self.config.loss_normalization == "mean":
            return losses
        tokens = np.array([sample.loss_tokens for sample in samples])
        by_token: NDArray[np.float32] = (losses / tokens).astype(np.float32)
        return by_token

    def gradients(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """The whole per-sample gradients, for tests and small studies.

        Returns:
            By layer: (n, out, r) for a fresh adapter, the gradient of B; (n, out, in) for the other targets; for an
            adapter with a B, (n, r, in) by ``<layer>.lora_A`` and (n, out, r) by ``<layer>.lora_B``. Preconditioned,
            if that is asked for; float32, on the CPU. The sketch is a projection of their concatenation.
        """
        taps = make_taps(self._passes.model, self.config, self._start.adapter, sketched=False)
        folds = {part: fold for tap in taps.values() for part, fold in tap.folds.items()}
        found: dict[str, torch.Tensor] = {}

        def run(batch: Batch) -> None:
            rows: dict[str, torch.Tensor] = {}
            parts: set[str] = set()

            def receive(part: str, u: torch.Tensor, d: torch.Tensor) -> None:
                self._note(part, parts)
                gradient = self._sketches[part].conditioned(folds[part].gradients(u, d)).cpu()
                rows[part] = rows[part] + gradient if part in rows else gradient

            self._passes.run(batch, taps, receive)
            for part, gradient in rows.items():
                whole = found.setdefault(part, gradient.new_zeros((len(samples), *gradient.shape[1:])))
                whole[batch.indices.cpu()] = gradient

        self._passes.each(samples, run)
        return {part: found[part] for part in folds if part in found}

    def each(
        self, samples: Sequence[Sample], run: Callable[[Batch], None], poll: Callable[[], None] = never, ahead: int = 0
    ) -> None:
        """Give every sample to `run` once, in batches; as `Passes.each` has it."""
        self._passes.each(samples, run, poll, ahead=ahead)

    def states(self, batch: Batch, poll: Callable[[], None] = never) -> torch.Tensor:
        """What the last block makes of each position of a batch, after the last norm; (B, T, H)."""
        return self._passes.states(batch, self._taps, poll)

    def label_losses(self, batch: Batch, poll: Callable[[], None] = never) -> torch.Tensor:
        """The loss of each label of a batch, in nats; (N,) float32."""
        return self._passes.label_losses(batch, self._taps, poll)

    def _layer_sketches(self) -> dict[str, LayerSketch]:
        conditions = self._start.conditions()
        return {
            part: layer_sketch(
                part, fold, self.config, tap.layer.device, conditions[part](tap.layer.device) if conditions else None
            )
            for tap in self._taps.values()
            for part, fold in tap.folds.items()
        }


def _ends(model: ProxyModel) -> torch.Tensor:
    """Tokens that end a response: those that a tokenizer has for no text, (k,), int64; none without a tokenizer."""
    if model.tokenizer is None:
        return torch.empty(0, dtype=torch.int64)
    added = model.tokenizer.added_tokens_decoder.items()
    return torch.tensor(sorted(number for number, token in added if token.special), dtype=torch.int64)
