"""Tensors and texts in one safetensors file that carries the checksum of all of it.

The texts, in its header, count as the tensors do: the picks of a schedule, and what a proof's run gave, stand there.
"""

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
BLANK = b"0" * hashlib.sha256().digest_size * 2
"""What stands for the checksum's digits while it is taken."""


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
    content = bytearray(save_tensors(contiguous, metadata={**metadata, CHECKSUM: BLANK.decode()}))
    at = _checksum_at(content)
    content[at : at + len(BLANK)] = _digest(content, at).encode()
    return bytes(content)


def unpack(content: bytes) -> CheckedTensors | None:
    """What `pack` packed; None where the content is not whole."""
    try:
        at = _checksum_at(content)
        if content[at : at + len(BLANK)].decode() != _digest(content, at):
            return None
        metadata = _metadata(content)
        del metadata[CHECKSUM]
        return CheckedTensors(load_tensors(content), metadata)
    except Exception:  # noqa: BLE001 - damaged bytes may raise anything, and mean one thing
        return None


def _header(content: bytes | bytearray) -> bytes:
    """The header of a safetensors file: JSON, after 8 bytes that say how long it is."""
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    return bytes(content[LENGTH_BYTES : LENGTH_BYTES + length])


def _metadata(content: bytes) -> dict[str, str]:
    metadata: dict[str, str] = json.loads(_header(content))["__metadata__"]
    return metadata


def _checksum_at(content: bytes | bytearray) -> int:
    """Where the checksum's digits begin. What stands before them is in no value: quotes are escaped there."""
    before = f'"{CHECKSUM}":"'.encode()
    return LENGTH_BYTES + _header(content).index(before) + len(before)


def _digest(content: bytes | bytearray, at: int) -> str:
    """Sha256 of all of a file but the digits of its checksum, for which there are zeros."""
    view = memoryview(content)
    digest = hashlib.sha256(view[:at])
    digest.update(BLANK)
    digest.update(view[at + len(BLANK) :])
    return digest.hexdigest()
