"""What a figure consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Table:
    """The numbers of a figure, as text, few enough to read.

    Attributes:
        columns: Heads.
        rows: Cells, as many in each row as there are heads.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        name: As in its URL.
        title: What it shows.
        caption: What can be read off it, in words.
        svg: The drawing, one `<svg>` element; its classes are those of `figures.css`.
        table: The numbers behind it.
    """

    name: str
    title: str
    caption: str
    svg: str
    table: Table
