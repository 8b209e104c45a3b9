"""The demo dataset's one row shape."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """One instruction with its answer.

    Attributes:
        source: Where it comes from, such as `code-to-docstring` or `exam-de`.
        prompt: What is asked.
        response: What is answered; the only part that carries loss.
    """

    source: str
    prompt: str
    response: str

    @property
    def size(self) -> int:
        """Length of prompt and response together, in bytes of UTF-8; tokens follow it closer than characters."""
        return len(self.prompt.encode()) + len(self.response.encode())

    @property
    def is_clean(self) -> bool:
        """Whether it is free of control characters, which some of the sources carry by accident."""
        return not any(ord(char) < ord(" ") and char != "\n" for char in self.prompt + self.response)


def shuffled(rows: Iterable[Row]) -> list[Row]:
    """The rows without repetition, in an order that depends on each row's text alone.

    A row that comes or goes with another version of a package leaves the order of all others as it was.
    """
    return sorted(set(rows), key=_place)


def _place(row: Row) -> bytes:
    return sha256(f"{row.source}\0{row.prompt}\0{row.response}".encode()).digest()
