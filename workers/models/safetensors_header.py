"""The shapes that a safetensors file names, once the safetensors library has held its header to the file.

The library refuses a header that speaks of bytes that are not there, that belong to two tensors or to none, or that
are not as many as dtype and shape say. It maps the file and reads no tensor. It takes the last of two tensors that have
one name, where another reader may take the first, so a name that occurs twice is refused here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from workers.models.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

LENGTH_BYTES = 8
"""At the start of a file: the length of its header, little endian."""
DTYPES = tuple("F64 F32 F16 BF16 F8_E4M3 F8_E5M2 I64 I32 I16 I8 U64 U32 U16 U8 BOOL".split())  # noqa: SIM905 - one line
MOST_DIMENSIONS = 16


@dataclass(frozen=True, slots=True)
class Tensor:
    """The name, shape and dtype of one tensor, the dtype as the file names it."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "F32"

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """How many bytes it has."""
        return self.elements * (1 if self.dtype == "BOOL" else int(re.findall(r"\d+", self.dtype)[0]) // 8)

    @property
    def scaled(self) -> bool:
        """Whether its numbers, of 8 bits each, stand for a weight only together with a scale."""
        return self.dtype.startswith("F8") or (self.dtype == "I8" and self.name.endswith(".weight"))

    @property
    def packed(self) -> bool:
        """Whether its numbers are integers, as those of quantised weights are, and do not stand for themselves."""
        return self.dtype[0] in "IUB" and not self.dtype.startswith("BF")


def check_header(file: Path, max_bytes: int) -> list[Tensor]:
    """The tensors of a weight file.

    Args:
        file: The file.
        max_bytes: The longest header that is read.

    Raises:
        ModelError: The header is too long or does not fit the file, or a tensor is of a kind that no model here uses.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if max_bytes < length <= file.stat().st_size:  # a longer one is a lie, which the library refuses unread
            raise ModelError(
                f"model.uri: the header of {file.name} has {length:,} bytes, the limit is {max_bytes:,}: "
                "raise SPICE_MODEL_JSON_MAX_BYTES if the model is as large as that"
            )
        try:
            with safe_open(file, "np") as content:
                tensors = [_tensor(file, name, content.get_slice(name)) for name in content.keys()]  # noqa: SIM118
            json.loads(stream.read(length), object_pairs_hook=_without_duplicates)
        except (SafetensorError, ValueError) as error:
            if isinstance(error, ModelError):
                raise
            what = str(error).removeprefix("Error while deserializing header: ")[:200]
            raise ModelError(
                f"model.uri: {file.name} is not what its header says ({what}): copy the model again"
            ) from error
    return tensors


def _tensor(file: Path, name: str, entry: Any) -> Tensor:  # noqa: ANN401 - the library has no name for its type
    dtype, shape = entry.get_dtype(), tuple(entry.get_shape())
    if dtype not in DTYPES:
        raise ModelError(
            f"model.uri: {file.name}: tensor {name[:100]!r} has dtype {dtype!r}: use weights of one of "
            f"{', '.join(DTYPES)}"
        )
    if len(shape) > MOST_DIMENSIONS:
        raise ModelError(
            f"model.uri: {file.name}: tensor {name[:100]!r} has {len(shape)} dimensions, the limit is "
            f"{MOST_DIMENSIONS}: copy the model again"
        )
    return Tensor(name, shape, dtype)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found
