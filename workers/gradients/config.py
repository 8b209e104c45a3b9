"""What a gradient is taken of and how it is sketched: the settings that decide a sketch's value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

TargetName = Literal["lora", "linear", "last_layer"]
SketchKind = Literal["auto", "sparse", "factorised"]
LossNormalization = Literal["sum", "mean"]
LossOver = Literal["response", "row"]
Preconditioner = Literal["none", "adam"]

SKETCH_VERSION = 3
"""Bumped whenever the same configuration would give other numbers; sketches of two versions never mix."""
PROMPT_EFFECT_VERSION = 1
"""Likewise for the loss without a prompt, which is stored with the sketches."""
PREPARATION_VERSION = 1
"""Likewise for warm-up and second moments."""

MAX_SKETCH_DIM = 65_536
MAX_RANK = 256
MAX_WARMUP_STEPS = 1000
FACTOR_SIDE = 128
"""Longest side of a factor of the factorised sketch; a longer side is folded down to it."""


@dataclass(frozen=True, slots=True)
class GradientConfig:
    """The choices of a sketch.

    Attributes:
        target: ``lora``: an adapter on the linear layers, by default a fresh one (B = 0), whose only non-zero
            gradient is that of B; ``linear``: the full gradient of the linear layers; ``last_layer``: that of the
            output head alone, which needs no backward pass through the blocks.
        rank: Rank of a fresh adapter; used by ``lora`` alone.
        layers: Which layers, by the last parts of their names (``("q_proj", "v_proj")``) or by patterns
            (``("layers.1?.mlp.*",)``); None takes every linear layer of the decoder blocks, or of the given adapter.
            Not for ``last_layer``.
        adapter: Revision of a given adapter (`workers.gradients.peft_adapter`), for ``lora``; None: a fresh one.
        warmup_steps: Steps that a fresh adapter is trained for, on a seeded sample of the dataset, before samples are
            scored; then the gradients of A and of B count.
        warmup_learning_rate: Adam's, in these steps.
        preconditioner: ``adam`` divides every entry of a gradient by the root of its second moment, before it is
            sketched, so that no direction counts more only because gradients are large there.
        sketch: ``sparse`` folds the per-sample gradient of each layer with random signs into ``sketch_dim``
            buckets; ``factorised`` folds activations and output gradients first; ``auto`` takes ``sparse`` for
            ``lora``, whose gradients are small, and with a preconditioner, which needs whole gradients, and
            ``factorised`` for the others.
        sketch_dim: Length p of a sketch.
        seed: Seed of every random choice.
        loss_normalization: ``sum`` of the response tokens' losses, or their ``mean``, which favours short
            responses.
        loss_over: Whose tokens' losses: those of the ``response``, or of the whole ``row``, its prompt included.
        prompt_effect: Whether to take each response's loss without its prompt too, by a forward pass of its own.
        token_budget: Tokens of one batch, padding included. Bounds memory; does not change a sketch.
    """

    target: TargetName = "lora"
    rank: int = 8
    layers: tuple[str, ...] | None = None
    adapter: str | None = None
    warmup_steps: int = 0
    warmup_learning_rate: float = 2e-4
    preconditioner: Preconditioner = "none"
    sketch: SketchKind = "auto"
    sketch_dim: int = 2048
    seed: int = 0
    loss_normalization: LossNormalization = "sum"
    loss_over: LossOver = "response"
    prompt_effect: bool = False
    token_budget: int = 2048

    def __post_init__(self) -> None:
        """Refuse wrong values and combinations.

        Raises:
            ValueError: The message names the field and what it may be.
        """
        _one_of("target", self.target, get_args(TargetName))
        _one_of("sketch", self.sketch, get_args(SketchKind))
        _one_of("loss_normalization", self.loss_normalization, get_args(LossNormalization))
        _one_of("loss_over", self.loss_over, get_args(LossOver))
        _one_of("preconditioner", self.preconditioner, get_args(Preconditioner))
        _within("rank", self.rank, 1, MAX_RANK)
        _within("warmup_steps", self.warmup_steps, 0, MAX_WARMUP_STEPS)
        _within("sketch_dim", self.sketch_dim, 1, MAX_SKETCH_DIM)
        _within("seed", self.seed, 0, 2**63 - 1)
        _within("token_budget", self.token_budget, 1, 2**31 - 1)
        if not (math.isfinite(self.warmup_learning_rate) and 0 < self.warmup_learning_rate <= 1):
            raise ValueError(f"warmup_learning_rate: {self.warmup_learning_rate!r} is not over 0 and at most 1")
        self._refuse_combinations()

    def _refuse_combinations(self) -> None:
        if self.layers is not None:
            if self.target == "last_layer":
                raise ValueError("layers: target 'last_layer' is the output head alone; leave layers out")
            if not self.layers or not all(self.layers):
                raise ValueError("layers: name at least one layer, or leave it out for all linear layers")
        if self.target != "lora" and self.adapter is not None:
            raise ValueError(f"adapter: belongs to target 'lora', and the target is {self.target!r}")
        if self.target != "lora" and self.warmup_steps:
            raise ValueError(f"warmup_steps: trains an adapter, and the target is {self.target!r}: use target 'lora'")
        if self.adapter is not None and self.warmup_steps:
            raise ValueError("warmup_steps: trains a fresh adapter; leave it out, or leave the given adapter out")
        if self.preconditioner != "none" and self.sketch == "factorised":
            raise ValueError("sketch: 'factorised' never has whole gradients to precondition: use 'sparse' or 'auto'")

    @property
    def kind(self) -> Literal["sparse", "factorised"]:
        """The kind of sketch that ``auto`` stands for."""
        if self.sketch == "auto":
            return "sparse" if self.target == "lora" or self.preconditioner != "none" else "factorised"
        return self.sketch

    @property
    def prepared(self) -> bool:
        """Whether something must be computed from the dataset before its samples can be sketched."""
        return self.warmup_steps > 0 or self.preconditioner != "none"

    def identity(self) -> dict[str, object]:
        """The fields that a shard's content depends on, ready for JSON: what content addressing hashes.

        The token budget is left out: it decides which samples share a batch, which changes nothing.
        """
        fresh = self.target == "lora" and self.adapter is None
        return {
            "version": SKETCH_VERSION,
            "target": self.target,
            "rank": self.rank if fresh else None,
            "layers": sorted(set(self.layers)) if self.layers is not None else None,
            "adapter": self.adapter,
            "warmup": [self.warmup_steps, self.warmup_learning_rate] if self.warmup_steps else None,
            "preconditioner": self.preconditioner,
            "preparation": PREPARATION_VERSION if self.prepared else None,
            "sketch": self.kind,
            "sketch_dim": self.sketch_dim,
            "seed": self.seed,
            "loss_normalization": self.loss_normalization,
            **({} if self.loss_over == "response" else {"loss_over": self.loss_over}),
            **({"prompt_effect": PROMPT_EFFECT_VERSION} if self.prompt_effect else {}),
        }


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field}: {value!r} is not one of {', '.join(allowed)}")


def _within(field: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{field}: {value!r} is not an integer from {least} to {most}")
