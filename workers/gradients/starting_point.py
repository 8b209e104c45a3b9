"""What samples are scored from: the model with a given adapter, a trained one, or none, and second moments.

A warm-up and second moments are computed once for a content key, by the first worker that needs them, and kept beside
the key's shards. Training amplifies rounding, so two machines, or one with another number of threads, would not get the
same adapter to the bit: whoever is first decides, and all others, the second of two that began together included, load
what is stored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from app.core.storage import sketches_prefix
from workers.gradients.adam_direction import AdamDirection
from workers.gradients.adapter import Adapter, LowRank, part_a, part_b
from workers.gradients.checked_tensors import pack, unpack
from workers.gradients.passes import Passes, stop_poll
from workers.gradients.second_moments import damped_roots, mean_squares
from workers.gradients.taps import make_taps
from workers.gradients.warmup import warm_up
from workers.selection.seeds import random_permutation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.core.storage import ArtifactStore
    from workers.data.samples import Samples
    from workers.gradients.config import GradientConfig
    from workers.models.proxy import ProxyModel

MOMENT_ROWS = 256
"""Samples that second moments are taken over where there was no warm-up."""
MOMENT = "moment:"
"""Before the name of a gradient, in the file, its second moment."""


@dataclass(frozen=True, slots=True, eq=False)
class AdamState:
    """Adam after some steps.

    Attributes:
        first: First moments by the gradients' names, not bias corrected, (a, b) float32.
        second: Second moments, likewise.
        steps: How many steps there were.
    """

    first: Mapping[str, torch.Tensor]
    second: Mapping[str, torch.Tensor]
    steps: int

    def direction(self, part: str, device: torch.device) -> AdamDirection:
        """What makes steps of the gradients of a name."""
        return AdamDirection(self.first[part].to(device), self.second[part].to(device), self.steps)


@dataclass(frozen=True, slots=True, eq=False)
class StartingPoint:
    """An adapter and second moments, as far as there are.

    Attributes:
        adapter: What the forward pass has beside the model's weights; None: nothing, or a fresh adapter.
        second_moments: (a, b) float32 by the gradients' names; None: gradients are not divided by their roots.
        adam: What makes Adam's steps of gradients instead; None: nothing does.
    """

    adapter: Adapter | None = None
    second_moments: Mapping[str, torch.Tensor] | None = None
    adam: AdamState | None = None

    def conditions(self) -> dict[str, Callable[[torch.device], Callable[[torch.Tensor], torch.Tensor]]]:
        """What is done with whole gradients before they are sketched, by their names, for a device; empty: nothing."""
        if self.adam is not None:
            return {part: partial(self.adam.direction, part) for part in self.adam.first}
        moments = self.second_moments or {}
        return {part: partial(_divided, damped_roots(moment)) for part, moment in moments.items()}

    def check(self, config: GradientConfig) -> None:
        """Refuse to start a configuration from another one's starting point.

        Raises:
            ValueError: It lacks what the configuration speaks of, or has more.
        """
        adapted = config.adapter is not None or config.warmup_steps > 0
        if adapted != (self.adapter is not None) or (config.preconditioner != "none") != (
            self.second_moments is not None or self.adam is not None
        ):
            raise ValueError("the starting point is not that of the configuration: see starting_point")


FRESH = StartingPoint()


def _divided(roots: torch.Tensor, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """What multiplies whole gradients, (B, a, b), by `roots`, in place."""
    factors = roots.to(device)
    return lambda gradients: gradients.mul_(factors)


def starting_point(
    model: ProxyModel,
    config: GradientConfig,
    samples: Samples,
    given: Adapter | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> StartingPoint:
    """Compute what a configuration starts from.

    Args:
        model: The proxy.
        config: What is sketched.
        samples: All samples of the dataset; some are taken by their numbers.
        given: The adapter that `config.adapter` names.
        should_stop: Asked at most every half second.

    Raises:
        ModelError: The model or the adapter can't serve, or nothing finite comes of them.
        Stopped: `should_stop` said so.
    """
    poll = stop_poll(should_stop)
    adapter, moments = given, None
    if config.warmup_steps:
        adapter, moments = warm_up(
            Passes(model.model, replace(config, loss_normalization="sum")), config, samples, poll
        )
    if config.preconditioner == "none":
        return StartingPoint(adapter)
    if moments is None:
        order = random_permutation(len(samples), seed=config.seed, role="moments/rows", layer="")
        chosen = [samples[int(row)] for row in order[:MOMENT_ROWS]]
        taps = make_taps(model.model, config, adapter, sketched=False)
        found = mean_squares(Passes(model.model, config), taps, chosen, poll)
        moments = {part: moment.cpu() for part, moment in found.items()}
    return StartingPoint(adapter, moments)


def shared_starting_point(artifacts: ArtifactStore, key: str, make: Callable[[], StartingPoint]) -> StartingPoint:
    """The starting point that is kept with a key's sketches, made and kept if there is none.

    Args:
        artifacts: Where the key's shards are.
        key: Content key of the sketches, which names everything that the starting point depends on.
        make: Computes it.
    """
    name = f"{sketches_prefix(key)}start.safetensors"

    def stored() -> StartingPoint | None:
        content = artifacts.read(name)
        return None if content is None else _unpacked(key, content)

    found = stored()
    if found is not None:
        return found
    packed = _packed(key, make())
    content = artifacts.read(name)  # once more, as somebody may have been quicker
    if content is not None and _unpacked(key, content) is None:
        artifacts.remove(name)  # damaged
        content = None
    if content is None:
        artifacts.write_new(name, packed)
    return stored() or shared_starting_point(artifacts, key, make)


def _packed(key: str, start: StartingPoint) -> bytes:
    tensors: dict[str, torch.Tensor] = {}
    scales: dict[str, float] = {}
    for layer, low_rank in (start.adapter.layers if start.adapter is not None else {}).items():
        tensors[part_a(layer)], tensors[part_b(layer)] = low_rank.down, low_rank.up
        scales[layer] = low_rank.scale
    for part, moment in (start.second_moments or {}).items():
        tensors[MOMENT + part] = moment
    revision = None if start.adapter is None else start.adapter.revision
    arrays = {name: values.float().cpu().numpy() for name, values in tensors.items()}
    return pack(arrays, {"key": key, "scales": json.dumps(scales), "revision": json.dumps(revision)})


def _unpacked(key: str, content: bytes) -> StartingPoint | None:
    """What `_packed` packed; None where it is damaged or another key's."""
    found = unpack(content)
    if found is None or found.metadata.get("key") != key:
        return None
    tensors = {name: torch.from_numpy(values.copy()) for name, values in found.tensors.items()}
    layers = {
        layer: LowRank(tensors[part_a(layer)], tensors[part_b(layer)], scale)
        for layer, scale in json.loads(found.metadata["scales"]).items()
    }
    moments = {name.removeprefix(MOMENT): values for name, values in tensors.items() if name.startswith(MOMENT)}
    adapter = Adapter(layers, json.loads(found.metadata["revision"])) if layers else None
    return StartingPoint(adapter, moments or None)
