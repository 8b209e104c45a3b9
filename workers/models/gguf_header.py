"""What a GGUF file says of itself, checked before a reader believes it.

Readers follow the counts and lengths of the header wherever they lead: an array of 2^60 items that are not there keeps
one busy for ever. Here each is held to the bytes that are there.
"""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from workers.models.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from workers.models.limits import ModelLimits

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_DIMENSIONS = 4
STRING, ARRAY = 8, 9
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of each type of value that has a fixed width."""


def check_gguf(file: Path, limits: ModelLimits) -> int:
    """Hold a file's header to the file.

    Returns:
        Numbers in all its tensors together.

    Raises:
        ModelError: It is no GGUF file, its header is too long or leads beyond its end, or it is too large unpacked.
    """
    if not file.is_file():
        raise ModelError(f"model.uri: {file} is not a file: give a .gguf file or the directory of a saved model")
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(min(size, limits.json_max_bytes))
    walk = _Walk(file.name, head, size, limits.json_max_bytes)
    if walk.take(len(MAGIC)) != MAGIC:
        raise ModelError(f"model.uri: {file.name} does not begin as a GGUF file does: copy the model again")
    version, tensors, values = walk.unpack("<IQQ")
    if version not in VERSIONS:
        raise ModelError(f"model.uri: {file.name} is GGUF of version {version}: use one of version 2 or 3")
    for _ in range(values):
        walk.string()
        walk.value()
    elements = sum(walk.tensor() for _ in range(tensors))
    unpacked = elements * 4
    if unpacked > limits.max_bytes:
        raise ModelError(
            f"model.uri: {file.name} takes {unpacked:,} bytes unpacked, the limit is {limits.max_bytes:,}: "
            "use a smaller proxy model, or raise SPICE_MODEL_MAX_BYTES"
        )
    return elements


class _Walk:
    """A place in a header, which never moves beyond what is there."""

    def __init__(self, name: str, head: bytes, size: int, limit: int) -> None:
        self._name = name
        self._head = head
        self._size = size
        self._limit = limit
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > len(self._head) - self._at:
            if len(self._head) < self._size:
                raise ModelError(
                    f"model.uri: the header of {self._name} is longer than {self._limit:,} bytes: "
                    "raise SPICE_MODEL_JSON_MAX_BYTES if the model is as large as that"
                )
            raise self._lies(f"its header leads to byte {self._at + count:,}, the file has {self._size:,}")
        self._at += count
        return self._head[self._at - count : self._at]

    def unpack(self, layout: str) -> tuple[int, ...]:
        """The next numbers."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def string(self) -> bytes:
        """The next string."""
        (length,) = self.unpack("<Q")
        return self.take(length)

    def value(self) -> None:
        """Pass over a value of the metadata."""
        (kind,) = self.unpack("<I")
        count = 1
        if kind == ARRAY:
            kind, count = self.unpack("<IQ")
        if kind in WIDTHS:
            self.take(WIDTHS[kind] * count)
        elif kind == STRING:
            for _ in range(count):
                self.string()
        else:
            raise self._lies(f"its metadata has a value of the unknown type {kind}")

    def tensor(self) -> int:
        """Pass over the description of a tensor; how many numbers it has."""
        name = self.string()[:100].decode(errors="replace")
        (dimensions,) = self.unpack("<I")
        if dimensions > MOST_DIMENSIONS:
            raise self._lies(f"{name!r} has {dimensions:,} dimensions")
        elements = prod(self.unpack(f"<{dimensions}Q"))
        kind, offset = self.unpack("<IQ")
        try:
            block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise self._lies(f"{name!r} is of the unknown type {kind}") from None
        if elements % block or offset + elements // block * width > self._size:
            raise self._lies(f"{name!r} has {elements:,} numbers at byte {offset:,}, the file has {self._size:,} bytes")
        return elements

    def _lies(self, what: str) -> ModelError:
        return ModelError(f"model.uri: {self._name} is not what its header says ({what}): copy the model again")
