"""Reading a LoRA adapter as PEFT saves it: adapter_config.json and adapter_model.safetensors, and never anything else.

PEFT itself is not needed for that: the tensors say which layers are adapted and with which rank, and of the
configuration only the scale matters. Whatever would make the adapter more than y = W x + s B A x is refused by name.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from threading import Lock
from typing import TYPE_CHECKING, cast

from safetensors import SafetensorError
from safetensors.torch import load

from workers.gradients.adapter import Adapter, LowRank
from workers.gradients.config import MAX_RANK
from workers.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LARGEST_CONFIG = 1 << 20
"""Bytes; PEFT's own are one or two KiB."""
KEY = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<part>[AB])\.weight")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_.]+")
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights that leave the base model's own weights alone."""
PLAIN_BIAS = "none"
MUST_BE_EMPTY = (
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
)
"""Settings under which an adapter is something else than B A on linear layers."""


class AdapterCache:
    """Keeps the last adapter. Files that changed (size or time of change) are read again."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = Lock()
        self._key: tuple[object, ...] | None = None
        self._kept: Adapter | None = None

    def get(self, path: Path) -> Adapter:
        """The adapter of a directory; errors of `read_adapter`."""
        files = adapter_files(path)
        key = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        with self._lock:
            if self._kept is None or key != self._key:
                self._kept, self._key = read_adapter(path), key
            return self._kept


def adapter_files(path: Path) -> tuple[Path, Path]:
    """The two files of an adapter, after every check that needs no reading.

    Raises:
        ModelError: Not a directory, a file is missing or a link out of the directory.
    """
    if not path.is_dir():
        raise ModelError(f"gradients.adapter: {path} is not a directory: give the directory of a saved PEFT adapter")
    root = path.resolve()
    for name in (CONFIG, WEIGHTS):
        file = path / name
        if not file.is_file():
            raise ModelError(
                f"gradients.adapter: {path.name} has no {name}: save the adapter with save_pretrained, which writes "
                "safetensors; other weight files can run code when opened"
            )
        if not file.resolve().is_relative_to(root):
            raise ModelError(
                f"gradients.adapter: {path.name}/{name} is a link out of the directory: copy the adapter with its "
                "links resolved (cp -rL)"
            )
    return path / CONFIG, path / WEIGHTS


def read_adapter(path: Path) -> Adapter:
    """Read an adapter.

    Args:
        path: The directory that PEFT's ``save_pretrained`` wrote.

    Raises:
        ModelError: It is not one of plain LoRA on linear layers; the message says what to do.
    """
    config_file, weights_file = adapter_files(path)
    if config_file.stat().st_size > LARGEST_CONFIG:
        raise ModelError(
            f"gradients.adapter: {path.name}/{CONFIG} is larger than {LARGEST_CONFIG} bytes: copy it again"
        )
    content = {file.name: file.read_bytes() for file in (config_file, weights_file)}
    config = _checked_config(path.name, content[CONFIG])
    try:
        tensors = load(content[WEIGHTS])
    except SafetensorError as error:
        raise ModelError(f"gradients.adapter: {path.name}/{WEIGHTS} can't be read ({error}): copy it again") from error
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, values in tensors.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise ModelError(
                f"gradients.adapter: {path.name} holds {key}, which is not the lora_A or lora_B of a linear layer: "
                "train an adapter of plain LoRA on linear layers"
            )
        pairs.setdefault(match["layer"], {})[match["part"]] = values
    if not pairs:
        raise ModelError(f"gradients.adapter: {path.name} adapts no layer: give one that was trained")
    layers = {layer: _low_rank(path.name, layer, parts, config) for layer, parts in sorted(pairs.items())}
    return Adapter(layers, revision=_revision(content))


def _checked_config(name: str, content: bytes) -> dict[str, object]:
    """The configuration, if it is one of plain LoRA."""
    try:
        config: object = json.loads(content)
    except ValueError as error:
        raise ModelError(f"gradients.adapter: {name}/{CONFIG} is not JSON: copy the adapter again") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise ModelError(f"gradients.adapter: {name} is of type {kind!r}: only LORA can be used")
    odd = [field for field in MUST_BE_EMPTY if config.get(field)]
    if config.get("bias", PLAIN_BIAS) != PLAIN_BIAS:
        odd.append("bias")
    if odd:
        raise ModelError(
            f"gradients.adapter: {name} uses {', '.join(odd)}: train an adapter of plain LoRA, without {odd[0]}"
        )
    start = config.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise ModelError(
            f"gradients.adapter: {name} was begun with init_lora_weights={start!r}, which changed the base model's own "
            "weights: convert it to plain LoRA (PEFT: save_pretrained with path_initial_model_for_weight_conversion)"
        )
    return cast("dict[str, object]", config)


def _low_rank(name: str, layer: str, parts: Mapping[str, torch.Tensor], config: Mapping[str, object]) -> LowRank:
    down, up = parts.get("A"), parts.get("B")
    if down is None or up is None or down.dim() != 2 or up.dim() != 2 or down.shape[0] != up.shape[1]:  # noqa: PLR2004
        raise ModelError(f"gradients.adapter: {name} has no A and B that fit each other for {layer}: save it again")
    rank = int(down.shape[0])
    if not 1 <= rank <= MAX_RANK:
        raise ModelError(f"gradients.adapter: {name} has rank {rank} at {layer}: the largest is {MAX_RANK}")
    alpha = _alpha(layer, config)
    if alpha is None:
        raise ModelError(f"gradients.adapter: {name}/{CONFIG} gives no number as lora_alpha for {layer}: save it again")
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    return LowRank(down.float(), up.float(), scale)


def _alpha(layer: str, config: Mapping[str, object]) -> float | None:
    """Lora_alpha of a layer: of alpha_pattern the first key that the layer's name ends in, else that of all layers.

    Raises:
        ModelError: A key is a regular expression, which PEFT would take and a service should not run.
    """
    patterns = config.get("alpha_pattern") or {}
    alpha = config.get("lora_alpha")
    for wanted, value in patterns.items() if isinstance(patterns, dict) else ():
        if not PLAIN_NAME.fullmatch(wanted):
            raise ModelError(
                f"gradients.adapter: alpha_pattern has the regular expression {wanted[:100]!r}: write the layers' names"
            )
        if layer == wanted or layer.endswith(f".{wanted}"):
            alpha = value
            break
    usable = isinstance(alpha, int | float) and not isinstance(alpha, bool) and math.isfinite(alpha)
    return float(cast("float", alpha)) if usable else None


def _revision(content: Mapping[str, bytes]) -> str:
    """Sha256, in hex, over the name and content of each file; the same wherever the directory lies.

    Of the bytes that were read, not of the files once more: they may be others by then.
    """
    total = hashlib.sha256()
    for name, data in content.items():
        total.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    return total.hexdigest()
