"""What a gradient is taken of and how it is sketched: the settings that decide a sketch's value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

TargetName = Literal["lora", "linear", "last_layer"]
SketchKind = Literal["auto", "sparse", "factorised"]
LossNormalization = Literal["sum", "mean"]
Normalization = Literal["none", "unit"]

SKETCH_VERSION = 1
"""Bumped whenever the same configuration would give other numbers; sketches of two versions never mix."""

MAX_SKETCH_DIM = 65_536
MAX_RANK = 256
FACTOR_SIDE = 128
"""Longest side of a factor of the factorised sketch; a longer side is folded down to it."""


@dataclass(frozen=True, slots=True)
class GradientConfig:
    """The choices of a sketch.

    Attributes:
        target: ``lora``: a fresh adapter on the linear layers (B = 0), whose only non-zero gradient is that of B;
            ``linear``: the full gradient of the linear layers; ``last_layer``: that of the output head alone,
            which needs no backward pass through the blocks.
        rank: Rank of the adapter; used by ``lora`` alone.
        modules: Names of the layers by their last parts (``("q_proj", "v_proj")``); None takes every linear
            layer of the decoder blocks. Not used by ``last_layer``.
        sketch: ``sparse`` folds the per-sample gradient of each layer with random signs into ``sketch_dim``
            buckets; ``factorised`` folds activations and output gradients first; ``auto`` takes ``sparse`` for
            ``lora``, whose gradients are small, and ``factorised`` for the others.
        sketch_dim: Length p of a sketch.
        seed: Seed of every random choice.
        loss_normalization: ``sum`` of the response tokens' losses, or their ``mean``, which favours short
            responses.
        normalize: ``unit`` scales every sketch to length 1, so that only directions count.
        token_budget: Tokens of one batch, padding included. Bounds memory; does not change a sketch.
    """

    target: TargetName = "lora"
    rank: int = 8
    modules: tuple[str, ...] | None = None
    sketch: SketchKind = "auto"
    sketch_dim: int = 2048
    seed: int = 0
    loss_normalization: LossNormalization = "sum"
    normalize: Normalization = "none"
    token_budget: int = 2048

    def __post_init__(self) -> None:
        """Refuse wrong values.

        Raises:
            ValueError: The message names the field and what it may be.
        """
        _one_of("target", self.target, get_args(TargetName))
        _one_of("sketch", self.sketch, get_args(SketchKind))
        _one_of("loss_normalization", self.loss_normalization, get_args(LossNormalization))
        _one_of("normalize", self.normalize, get_args(Normalization))
        _within("rank", self.rank, 1, MAX_RANK)
        _within("sketch_dim", self.sketch_dim, 1, MAX_SKETCH_DIM)
        _within("seed", self.seed, 0, 2**63 - 1)
        _within("token_budget", self.token_budget, 1, 2**31 - 1)
        if self.modules is not None:
            if self.target == "last_layer":
                raise ValueError("modules: target 'last_layer' is the output head alone; leave modules out")
            if not self.modules or not all(self.modules):
                raise ValueError("modules: name at least one layer, or leave it out for all linear layers")

    @property
    def kind(self) -> Literal["sparse", "factorised"]:
        """The kind of sketch that ``auto`` stands for."""
        if self.sketch == "auto":
            return "sparse" if self.target == "lora" else "factorised"
        return self.sketch

    def identity(self) -> dict[str, str | int | list[str] | None]:
        """The fields that a sketch's value depends on, ready for JSON: what content addressing hashes.

        The token budget is left out: it decides which samples share a batch, which changes nothing.
        """
        lora = self.target == "lora"
        return {
            "version": SKETCH_VERSION,
            "target": self.target,
            "rank": self.rank if lora else None,
            "modules": sorted(set(self.modules)) if self.modules is not None else None,
            "sketch": self.kind,
            "sketch_dim": self.sketch_dim,
            "seed": self.seed,
            "loss_normalization": self.loss_normalization,
            "normalize": self.normalize,
        }


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field}: {value!r} is not one of {', '.join(allowed)}")


def _within(field: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{field}: {value!r} is not an integer from {least} to {most}")
