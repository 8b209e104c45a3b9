"""What a safetensors file says of itself, checked before anything is mapped or allocated on its word.

The file is 8 bytes (the header's length, little endian), the header (a JSON object of tensor name to dtype, shape and
span of bytes), and the bytes of the tensors, one after the other without a gap.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from workers.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LENGTH_BYTES = 8
BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}
MOST_DIMENSIONS = 16


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the header.

    Attributes:
        name: Its name.
        shape: Its shape.
        start: First byte after the header.
        end: Last byte + 1.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


def check_header(file: Path, max_bytes: int) -> list[Tensor]:
    """Read a weight file's header and hold it to the file.

    Args:
        file: The file.
        max_bytes: The longest header that is read.

    Returns:
        The tensors in the order of their bytes.

    Raises:
        ModelError: The header is too long, is not what a header is, or speaks of bytes that are not there, that
            belong to two tensors or to none, or that are not as many as dtype and shape say.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if length > size - LENGTH_BYTES:
            raise _lies(file, f"its header claims {length:,} bytes, the file has {size:,}")
        if length > max_bytes:
            raise ModelError(
                f"model.uri: the header of {file.name} has {length:,} bytes, the limit is {max_bytes:,}: "
                "raise SPICE_MODEL_JSON_MAX_BYTES if the model is as large as that"
            )
        header = stream.read(length)
    tensors = sorted(_tensors(file, header), key=lambda tensor: (tensor.start, tensor.end))
    end = 0
    for tensor in tensors:
        if tensor.start != end:
            what = "overlaps the tensor before it" if tensor.start < end else "leaves bytes that belong to no tensor"
            raise _lies(file, f"{tensor.name!r} begins at byte {tensor.start:,} and {what}")
        end = tensor.end
    if end != size - LENGTH_BYTES - length:
        raise _lies(file, f"its tensors end at byte {end:,} of {size - LENGTH_BYTES - length:,}")
    return tensors


def _tensors(file: Path, header: bytes) -> Iterator[Tensor]:
    try:
        entries = json.loads(header, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _lies(file, f"its header is not a JSON object ({type(error).__name__})") from error
    if not isinstance(entries, dict):
        raise _lies(file, "its header is not a JSON object")
    entries.pop("__metadata__", None)
    for name, entry in entries.items():
        yield _tensor(file, name, entry)


def _tensor(file: Path, name: str, entry: Any) -> Tensor:  # noqa: ANN401 - whatever the file holds
    short = name[:100]
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, span = fields.get("dtype"), _counts(fields.get("shape")), _counts(fields.get("data_offsets"))
    if shape is None or span is None or len(span) != len(("start", "end")):
        raise _lies(file, f"{short!r} has no shape and data_offsets of whole numbers")
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise ModelError(
            f"model.uri: {file.name}: tensor {short!r} has dtype {str(dtype)[:20]!r}: use weights of one of "
            f"{', '.join(BYTES)}"
        )
    tensor = Tensor(short, shape, span[0], span[1])
    needed = tensor.elements * BYTES[dtype]
    if needed != tensor.end - tensor.start:
        raise _lies(file, f"{short!r} has {tensor.end - tensor.start:,} bytes, its dtype and shape ask for {needed:,}")
    return tensor


def _counts(values: Any) -> tuple[int, ...] | None:  # noqa: ANN401 - whatever the file holds
    """A short list of whole numbers; None if it is something else."""
    if not isinstance(values, list) or len(values) > MOST_DIMENSIONS:
        return None
    return tuple(values) if all(type(value) is int and 0 <= value < 1 << 63 for value in values) else None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _lies(file: Path, what: str) -> ModelError:
    return ModelError(f"model.uri: {file.name} is not what its header says ({what}): copy the model again")
