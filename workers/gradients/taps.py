"""Where a model is tapped: at the layers that gradients are taken of, and at those that an adapter changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.gradients.sketch import layer_folds
from workers.gradients.tap import Tap
from workers.gradients.targets import check_adapter, target_layers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

    from workers.gradients.adapter import Adapter
    from workers.gradients.config import GradientConfig
    from workers.models.layers import LinearMap


def make_taps(
    model: PreTrainedModel, config: GradientConfig, adapter: Adapter | None, *, sketched: bool
) -> dict[str, Tap]:
    """The taps by the layers' names, target layers first.

    Args:
        model: The proxy.
        config: Which gradients.
        adapter: What the forward pass has beside the model's own weights; None: nothing, or a fresh adapter.
        sketched: As in `layer_folds`.

    Raises:
        ModelError: The model, the adapter or the choice of layers can't serve; the message says why.
    """
    targets = target_layers(model, config, adapter)
    if adapter is None:
        return _fresh(targets, config, sketched=sketched)
    taps: dict[str, Tap] = {}
    adapted = check_adapter(model, adapter)
    for name in [*targets, *(name for name in adapted if name not in targets)]:
        layer = adapted[name]
        low_rank = adapter.layers[name].to(layer.device, layer.dtype)
        folds = layer_folds(name, layer, config, low_rank, sketched=sketched) if name in targets else {}
        taps[name] = Tap(layer, folds, low_rank)
    return taps


def _fresh(targets: Mapping[str, LinearMap], config: GradientConfig, *, sketched: bool) -> dict[str, Tap]:
    """Taps without an adapter; layers that share one weight share one gradient, by the first one's name."""
    found: dict[str, Tap] = {}
    first: dict[tuple[int, int], Tap] = {}
    for name, layer in targets.items():
        shared = first.get((id(layer.weight), layer.expert))
        folds = layer_folds(name, layer, config, sketched=sketched) if shared is None else shared.folds
        found[name] = Tap(layer, folds)
        first.setdefault((id(layer.weight), layer.expert), found[name])
    return found
