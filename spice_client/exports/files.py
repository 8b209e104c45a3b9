"""Files of an export: each appears whole or not at all."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NPY_ALIGNMENT = 64


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """One JSON document a line, UTF-8."""
    with _replacing(path) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """One JSON document, UTF-8."""
    with _replacing(path) as file:
        file.write((json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def write_text(path: Path, text: str) -> None:
    """Text, UTF-8."""
    with _replacing(path) as file:
        file.write(text.encode())


def write_npy(path: Path, values: Sequence[int]) -> None:
    """Integers as NumPy's own format, version 1.0: shape (n,), int64. The client does without NumPy."""
    about = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({len(values)},), }}"
    start = len(b"\x93NUMPY\x01\x00") + 2
    padded = about + " " * (-(start + len(about) + 1) % NPY_ALIGNMENT) + "\n"
    with _replacing(path) as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode())
        file.write(struct.pack(f"<{len(values)}q", *values))


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(part).chmod(0o644)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
