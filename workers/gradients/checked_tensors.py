"""Tensors in one safetensors file that carries the checksum of its own content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

LENGTH_BYTES = 8
"""Of the header's length, with which a safetensors file begins."""
CHECKSUM = "sha256"


@dataclass(frozen=True, slots=True, eq=False)
class CheckedTensors:
    """What a whole file holds.

    Attributes:
        tensors: By name.
        metadata: What was packed with them.
    """

    tensors: dict[str, NDArray[Any]]
    metadata: dict[str, str]


def pack(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """The file's content."""
    contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    checksum = _data_digest(save_tensors(contiguous))
    return bytes(save_tensors(contiguous, metadata={**metadata, CHECKSUM: checksum}))


def unpack(content: bytes) -> CheckedTensors | None:
    """What `pack` packed; None where the content is not whole."""
    try:
        metadata = _metadata(content)
        if metadata.pop(CHECKSUM) != _data_digest(content):
            return None
        return CheckedTensors(load_tensors(content), metadata)
    except Exception:  # noqa: BLE001 - damaged bytes may raise anything, and mean one thing
        return None


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata in the header of a safetensors file: 8 bytes of length, then JSON."""
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    header = json.loads(content[LENGTH_BYTES : LENGTH_BYTES + length])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata


def _data_digest(content: bytes) -> str:
    """Sha256 of what follows the header of a safetensors file."""
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    return hashlib.sha256(memoryview(content)[LENGTH_BYTES + length :]).hexdigest()
