"""How much memory a model needs before any of it is loaded, and how much a device has.

Weights are counted on torch's meta device, which holds shapes and no numbers. What one token keeps for the backward
pass is in proportion to the inputs and outputs of the linear maps in the blocks: norms, activations and attention keep
these. Attention that spells out its matrix of positions by positions, and state-space layers without their kernels,
keep more, and are not counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil  # type: ignore[import-untyped]
import torch

from workers.models.architecture import block_prefixes, vocabulary_size
from workers.models.errors import ModelError, ModelTooLarge, in_brief
from workers.models.files import model_files
from workers.models.layers import expert_maps, holds_experts, linear_map
from workers.models.limits import ModelLimits
from workers.models.on_meta import model_on_meta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from workers.models.files import ModelFiles

FLOAT32 = torch.float32.itemsize
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
KEPT_PACKED = frozenset({"nf4", "fp4", "gptq", "awq"})
"""Formats whose weights stay as they are stored; those of others are plain numbers once they are loaded."""
LOGITS_AT_ONCE = 1 << 24
"""Logits that exist at one time on the plain path (64 MiB in float32); with them their gradients and a copy."""
GRADIENTS_AT_ONCE = 1 << 25
"""Gradient entries that exist at one time, and as many products; more samples than fit are folded in turns."""
ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
"""Fields in which configurations say how many experts a token goes through."""
KEPT = 1.6
"""Numbers kept for each input and output: 0.7 where activations are fused, 1.6 at most of those that were looked at."""
EXPERT = re.compile(r"\.experts\.(\d+)\.")
CONTROL_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Work:
    """What a model is loaded for.

    Attributes:
        row_tokens: Tokens of the longest row, which is run alone if need be.
        rows: Rows whose sketches are held together.
        sketch_dim: Length of a sketch; 0: none is made.
    """

    row_tokens: int
    rows: int = 0
    sketch_dim: int = 0


@dataclass(frozen=True, slots=True)
class MemoryNeeded:
    """Bytes that a model takes on its device, estimated.

    Attributes:
        parameters: How many numbers its weights are.
        weights: Bytes of them, as they are kept.
        per_token: Bytes that a token of a batch takes, forward and backward.
        sketches: Bytes of a shard's sketches, and of the logits and gradients that exist at one time.
    """

    parameters: int
    weights: int
    per_token: int
    sketches: int

    def total(self, tokens: int) -> int:
        """Bytes with a batch of that many tokens."""
        return self.weights + self.sketches + self.per_token * tokens

    def tokens_within(self, available: int) -> int:
        """The largest batch, in tokens, that fits into so many bytes; 0 or less where none does."""
        return (available - self.weights - self.sketches) // max(1, self.per_token)


def memory_needed(path: Path, *, dtype: str, work: Work, limits: ModelLimits | None = None) -> MemoryNeeded:
    """What a model on this machine takes, without loading it.

    Args:
        path: Its directory.
        dtype: ``float32`` or ``bfloat16``: what it is computed in.
        work: What it is to be loaded for.
        limits: How large it may be.

    Raises:
        ModelError: The directory is not one of a model that can be used.
    """
    limits = limits or ModelLimits()
    files = model_files(path, limits)
    with files.unchanged(), files.alone(dtype) as directory:
        try:
            model = model_on_meta(files, directory, limits)
        except ModelError:
            raise
        except Exception as error:  # transformers raises whatever a broken configuration brings about
            raise ModelError(
                f"model.uri: {path.name} can't be read ({in_brief(error)}): copy the model again"
            ) from error
        return memory_of(model, files, DTYPES[dtype], work)


def memory_of(model: PreTrainedModel, files: ModelFiles, dtype: torch.dtype, work: Work) -> MemoryNeeded:
    """What a model takes.

    Args:
        model: The model; on the meta device will do.
        files: Those that its weights are in.
        dtype: What it is computed in.
        work: What it is loaded for.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() * FLOAT32 for buffer in model.buffers())
    weights = parameters * dtype.itemsize
    if files.weights_stored_as in KEPT_PACKED:
        weights = sum(tensor.bytes if tensor.packed else tensor.elements * dtype.itemsize for tensor in files.tensors)
    logits = min(LOGITS_AT_ONCE, work.row_tokens * vocabulary_size(model))
    gradients = min(GRADIENTS_AT_ONCE, max((parameter.numel() for parameter in model.parameters()), default=0))
    at_once = (3 * logits + (2 * gradients if work.sketch_dim else 0)) * FLOAT32
    sketches = work.rows * work.sketch_dim * FLOAT32 + at_once
    return MemoryNeeded(parameters, weights + buffers, kept_numbers(model) * dtype.itemsize, sketches)


def kept_numbers(model: PreTrainedModel) -> int:
    """Numbers that a token keeps for the backward pass, by the linear maps in the blocks."""
    prefixes = block_prefixes(model)
    text = model.config.get_text_config()
    active = next((count for name in ACTIVE_EXPERTS if isinstance(count := getattr(text, name, None), int)), None)
    total = 0
    for name, module in model.named_modules():
        if not str(name).startswith(prefixes):
            continue
        if holds_experts(module):
            maps = [one for _, one in expert_maps(str(name), module)]
            experts = int(cast("Any", module).num_experts)
            each = sum(one.in_features + one.out_features for one in maps) // max(1, experts)
            total += each * min(experts, active or experts)
            continue
        found = linear_map(module)
        expert = EXPERT.search(str(name))
        if found is not None and not (expert and active is not None and int(expert[1]) >= active):
            total += found.in_features + found.out_features
    return int(KEPT * total)


def available_memory(device: torch.device) -> int:
    """Bytes that a device has left for a model: a GPU's free memory; else the least of what machine and container have.

    What torch keeps of a GPU without using it counts as free; likewise a container's cache of files.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    machine = int(psutil.virtual_memory().available)
    container = container_memory(CONTROL_GROUPS)
    return machine if container is None else min(machine, container)


def container_memory(root: Path) -> int | None:
    """Bytes that are left of the limit of this process's control group; None where there is no limit.

    Args:
        root: Where control groups are mounted; version 2 and version 1 are read.
    """
    for limit, used, cache in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            most, now = int((root / limit).read_text()), int((root / used).read_text())
            stat = dict(line.split() for line in (root / cache).read_text().splitlines())
        except (OSError, ValueError):  # not mounted, or "max": no limit
            continue
        files = sum(int(stat.get(name, 0)) for name in ("active_file", "inactive_file"))
        return max(0, most - now + files)
    return None


def check_memory(
    name: str, needed: MemoryNeeded, work: Work, devices: Sequence[torch.device], *, dtype: str, others: int = 0
) -> None:
    """Refuse a model that cannot fit, before it is loaded.

    Args:
        name: The model's, for the message.
        needed: Its estimate.
        work: What it is loaded for.
        devices: What it is loaded onto.
        dtype: What it is computed in.
        others: Further devices of the same kind that this worker has and does not use.

    Raises:
        ModelTooLarge: It cannot; the message has the numbers and what to do.
    """
    available = sum(available_memory(device) for device in devices)
    total = needed.total(work.row_tokens)
    if total <= available:
        return
    place = " and ".join(dict.fromkeys(map(str, devices)))
    raise ModelTooLarge(
        f"model.uri: {name} takes about {_size(total)} in {dtype}: {_size(needed.weights)} for "
        f"{needed.parameters:,} weights, {_size(needed.per_token * work.row_tokens)} for the longest row of "
        f"{work.row_tokens:,} tokens, {_size(needed.sketches)} for sketches; {place} has {_size(available)} left: "
        f"{_remedy(needed, work, available, dtype, others)}"
    )


def _remedy(needed: MemoryNeeded, work: Work, available: int, dtype: str, others: int) -> str:
    """What mends it, as far as the numbers say that it does."""
    half = needed.sketches + (needed.weights + needed.per_token * work.row_tokens) // 2
    if dtype == "float32" and half <= available:
        return f"set model.dtype to bfloat16, which takes about {_size(half)}"
    tokens = needed.tokens_within(available)
    if tokens >= 2:  # noqa: PLR2004 - the least that model.max_length may be
        return f"set model.max_length to {tokens:,} or less"
    spread = ', set model.devices to "all" to spread it over this worker\'s GPUs' if others else ""
    return f"use a smaller or a quantised proxy model{spread}, or give the worker more memory"


def _size(count: int) -> str:
    """Bytes, for reading."""
    power = min(3, max(1, (count.bit_length() - 1) // 10))
    return f"{count / 1024**power:,.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"
