"""Checkpoints of an adapter's training, packed into one file: safetensors, and JSON in its header."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from workers.gradients.adapter import Adapter, LowRank, part_a, part_b
from workers.gradients.checked_tensors import pack, unpack
from workers.gradients.starting_point import AdamState
from workers.gradients.warmup import SCALE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """An adapter in the midst of its training.

    Attributes:
        adapter: The adapter.
        adam: Adam's moments.
    """

    adapter: Adapter
    adam: AdamState


@dataclass(frozen=True, slots=True, eq=False)
class CheckpointFile:
    """What a file of checkpoints holds.

    Attributes:
        checkpoints: In order.
        about: What was packed with them.
    """

    checkpoints: Sequence[Checkpoint]
    about: Mapping[str, str]


def pack_checkpoints(given: Sequence[Checkpoint], about: Mapping[str, str]) -> bytes:
    """The content of a file.

    Args:
        given: One or more, of the same layers.
        about: What the file says besides; `layers` and `steps` are its own words.
    """
    tensors: dict[str, torch.Tensor] = {}
    for number, one in enumerate(given):
        for layer, low_rank in one.adapter.layers.items():
            tensors[f"{number}:adapter:{part_a(layer)}"] = low_rank.down
            tensors[f"{number}:adapter:{part_b(layer)}"] = low_rank.up
        for part, moment in one.adam.first.items():
            tensors[f"{number}:first:{part}"] = moment
        for part, moment in one.adam.second.items():
            tensors[f"{number}:second:{part}"] = moment
    written = {
        **about,
        "layers": json.dumps(list(given[0].adapter.layers)),
        "steps": json.dumps([one.adam.steps for one in given]),
    }
    return pack({name: values.float().cpu().numpy() for name, values in tensors.items()}, written)


def unpack_checkpoints(content: bytes, about: Mapping[str, str]) -> CheckpointFile | None:
    """What `pack_checkpoints` packed; None where the file is damaged, or does not say of itself what it is to."""
    found = unpack(content)
    if found is None or not about.items() <= found.metadata.items():
        return None
    tensors = {name: torch.from_numpy(values.copy()) for name, values in found.tensors.items()}
    layers = json.loads(found.metadata["layers"])
    steps = json.loads(found.metadata["steps"])

    def of(number: int, kind: str) -> dict[str, torch.Tensor]:
        start = f"{number}:{kind}:"
        return {name.removeprefix(start): values for name, values in tensors.items() if name.startswith(start)}

    made = []
    for number in range(len(steps)):
        parts = of(number, "adapter")
        adapter = Adapter({layer: LowRank(parts[part_a(layer)], parts[part_b(layer)], SCALE) for layer in layers})
        made.append(Checkpoint(adapter, AdamState(of(number, "first"), of(number, "second"), steps[number])))
    return CheckpointFile(made, found.metadata)
