"""One architecture, tiny and random: what the engine says of its gradients, and what autograd says."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from scripts.zoo.configs import VOCABULARY, tiny_config
from workers.data.samples import Sample
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.gradients.sketch import adapter_signs
from workers.gradients.targets import target_layers
from workers.models.errors import ModelError, in_brief
from workers.models.proxy import ProxyModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from transformers import PreTrainedModel

    from workers.models.layers import LinearMap

RANK = 4
ROWS = 6
SMALL = 1e-2
"""Of the largest layer's gradients; a layer whose gradients are smaller is looked at with the others only."""
MOST_PARAMETERS = 4_000_000
TARGETS = {
    "lora": GradientConfig(rank=RANK, sketch_dim=256),
    "linear": GradientConfig(target="linear", sketch_dim=256),
    "last_layer": GradientConfig(target="last_layer", sketch_dim=256),
    "experts": GradientConfig(target="linear", layers=("experts",), sketch_dim=256),
}
NO_EXPERTS = "no linear layer is named experts"


@dataclass(slots=True)
class Finding:
    """What was found of one architecture.

    Attributes:
        kind: The type, as configurations name it.
        errors: By target, the largest difference of a row's gradient from autograd's, relative to its length.
        refused: By target, what the engine said instead.
        left_out: What the default targets leave out.
        bfloat16: The largest difference that a row's neighbours make to its sketch in bfloat16; None: not measured.
        built: Why there is no tiny model of the type to try; empty where there is.
    """

    kind: str
    errors: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    bfloat16: float | None = None
    built: str = ""


def measure(kind: str, targets: Sequence[str] = tuple(TARGETS), *, half: bool = True) -> Finding:
    """Try one type; raises nothing that the engine has no message for."""
    finding = Finding(kind)
    try:
        network = tiny_network(kind)
    except Exception as error:  # noqa: BLE001 - whatever the architecture's own code raises on a configuration that is too small
        finding.built = in_brief(error)
        return finding
    rows = samples(ROWS)
    model = ProxyModel(model=network, tokenizer=cast("Any", None), revision="zoo", path=Path())
    found: dict[str, dict[str, torch.Tensor]] = {}
    layers: dict[str, dict[str, LinearMap]] = {}
    for target in targets:
        try:
            engine = GradientEngine(model, TARGETS[target])
            found[target] = engine.gradients(rows)
            layers[target] = _one_by_weight(target_layers(network, TARGETS[target]))
        except ModelError as error:
            if not (target == "experts" and NO_EXPERTS in str(error)):
                finding.refused[target] = str(error)
            continue
        if target == "lora":
            finding.left_out = engine.left_out
    reference = _reference(network, {name: one for maps in layers.values() for name, one in maps.items()}, rows)
    for target, maps in layers.items():
        finding.errors[target] = _largest_error(TARGETS[target], maps, reference, found[target])
    if half and "lora" in finding.errors:
        try:
            network.to(torch.bfloat16)
            engine = GradientEngine(model, TARGETS["lora"])
            together = engine.sketch(rows).values
            alone = np.concatenate([engine.sketch([row]).values for row in rows])
            finding.bfloat16 = _row_error(torch.from_numpy(together), torch.from_numpy(alone))
        except ModelError as error:
            finding.refused["bfloat16"] = str(error)
    return finding


def tiny_network(kind: str) -> PreTrainedModel:
    """A random model of the type, in eval mode, whose biases and norms are random too."""
    torch.manual_seed(0)
    config = tiny_config(kind)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"{size:,} parameters: its configuration is not made tiny by the fields that are known")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.add_(0.05 * torch.randn_like(parameter))
    model(input_ids=torch.arange(3, 12).unsqueeze(0), use_cache=False)
    return cast("PreTrainedModel", model)


def samples(count: int, longest: int = 20) -> list[Sample]:
    """Prompts and responses of many lengths."""
    random = np.random.default_rng(5)
    made = []
    for row in range(count):
        length = int(random.integers(4, longest + 1))
        mask = random.random(length) < random.choice([0.3, 1.0])
        mask[random.integers(1, length)] = True
        ids = random.integers(3, VOCABULARY - 2, length).astype(np.int32)
        made.append(Sample(row=row, input_ids=ids, loss_mask=mask))
    return made


def _reference(
    network: PreTrainedModel, layers: Mapping[str, LinearMap], rows: Sequence[Sample]
) -> dict[str, torch.Tensor]:
    """The gradients of the weights by autograd, one sample at a time: (n, out, in) by name."""
    if not layers:
        return {}
    with _untied(network):
        weights = {id(weight): weight for weight in (_parameter(layer) for layer in layers.values())}
        network.requires_grad_(requires_grad=False)
        for weight in weights.values():
            weight.requires_grad_(requires_grad=True)
        found: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
        for row in rows:
            wanted = list(weights.values())
            gradients = dict(
                zip(weights, torch.autograd.grad(_loss(network, row), wanted, allow_unused=True), strict=True)
            )
            for name, layer in layers.items():
                found[name].append(_of_layer(layer, gradients[id(_parameter(layer))]))
        network.requires_grad_(requires_grad=False)
    return {name: torch.stack(values) for name, values in found.items()}


def _largest_error(
    config: GradientConfig,
    layers: Mapping[str, LinearMap],
    reference: Mapping[str, torch.Tensor],
    found: Mapping[str, torch.Tensor],
) -> float:
    """Of all layers together and of each alone, the largest."""
    stacked: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        stacked[name] = reference[name]
        if config.target == "lora":
            signs = adapter_signs(name, layer.in_features, config.rank, config.seed).float()
            stacked[name] = reference[name] @ signs.T / config.rank**0.5
    given = {name: found.get(name, torch.zeros_like(values)) for name, values in stacked.items()}
    largest = max(float(values.norm()) for values in stacked.values())
    each = [
        _row_error(given[name], values) for name, values in stacked.items() if float(values.norm()) > SMALL * largest
    ]
    whole, wanted = (torch.cat([values.flatten(1) for values in side.values()], 1) for side in (given, stacked))
    return max([_row_error(whole, wanted), *each])


def _one_by_weight(layers: Mapping[str, LinearMap]) -> dict[str, LinearMap]:
    """Of layers that share a weight the first: its gradient is that of the weight."""
    seen: dict[tuple[int, int], str] = {}
    for name, layer in layers.items():
        seen.setdefault((id(layer.weight), layer.expert), name)
    return {name: layers[name] for name in seen.values()}


def _parameter(layer: LinearMap) -> nn.Parameter:
    return cast("nn.Parameter", getattr(layer.module, layer.weights or "weight"))


def _of_layer(layer: LinearMap, whole: torch.Tensor | None) -> torch.Tensor:
    """The gradient of one map, (out, in), out of that of the parameter which holds it."""
    if whole is None:
        return torch.zeros(layer.out_features, layer.in_features)
    if layer.weights:
        gradient = whole[layer.expert]
        return gradient.T if cast("Any", layer.module).is_transposed else gradient
    return whole.T if isinstance(layer.module, Conv1D) else whole


def _loss(network: PreTrainedModel, row: Sample) -> torch.Tensor:
    ids = torch.from_numpy(row.input_ids).long().unsqueeze(0)
    logits = network(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, :-1].float()
    losses = nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    return losses[torch.from_numpy(row.loss_mask[1:].copy())].sum()


@contextmanager
def _untied(network: PreTrainedModel) -> Iterator[None]:
    """Inside, the head's weight is its own, so that autograd's gradient of it is the head's alone."""
    head: object = network.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, nn.Linear):
        yield
        return
    before = head.weight
    head.weight = nn.Parameter(before.detach().clone())
    try:
        yield
    finally:
        head.weight = before


def _row_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of a row, relative to its length; rows near 0 count against the longest."""
    lengths = expected.flatten(1).norm(dim=1)
    difference = (found - expected).flatten(1).norm(dim=1)
    return float((difference / lengths.clamp_min(1e-2 * float(lengths.max())).clamp_min(1e-30)).max())
