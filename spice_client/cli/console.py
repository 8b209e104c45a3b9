"""Tables that fit the terminal: what tells things apart is whole, what describes them is cut."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 250
"""Where there is no terminal, nor COLUMNS: scripts want one line for each thing."""
GAP = 2
NARROWEST = 8
"""Of a column that is cut: a few characters and an ellipsis."""


def console() -> Console:
    """stdout, as wide as the terminal."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit():  # 0 where whoever set it did not know either
        return Console(highlight=False, width=int(columns) or WIDTH)
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def is_narrow() -> bool:
    """Whether whoever reads has a width that counts."""
    return console().width < WIDTH


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str | Text]], *, cut: str = "", right: str = ""
) -> None:
    """Write a table to stdout, a line for each row.

    Args:
        headings: Of the columns.
        rows: Their cells.
        cut: Headings, separated by commas, of the columns that give way where the table is too wide.
        right: Headings of the columns of numbers.
    """
    out = console()
    giving, numbers = set(cut.split(",")), set(right.split(","))
    widths = [max(_width(cell) for cell in (heading, *cells)) for heading, *cells in zip(headings, *rows, strict=True)]
    limits = _limits(headings, widths, giving, out.width - GAP * (len(headings) - 1))
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for heading, limit in zip(headings, limits, strict=True):
        table.add_column(
            heading,
            no_wrap=True,
            overflow="ellipsis",
            max_width=limit,
            justify="right" if heading in numbers else "left",
        )
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    out.print(table)


def fits(headings: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> bool:
    """Whether a table has room beside its columns as they are."""
    columns = zip(headings, *rows, strict=True)
    return sum(max(map(_width, column)) for column in columns) + GAP * (len(headings) - 1) <= console().width


def _limits(headings: Sequence[str], widths: Sequence[int], giving: set[str], room: int) -> list[int]:
    """How wide each column may be: those that give way share what the others leave, the short ones first."""
    limits = list(widths)
    left = room - sum(width for heading, width in zip(headings, widths, strict=True) if heading not in giving)
    places = sorted((place for place, one in enumerate(headings) if one in giving), key=limits.__getitem__)
    for done, place in enumerate(places):
        limits[place] = max(NARROWEST, min(limits[place], left // (len(places) - done)))
        left -= limits[place]
    return limits


def _width(cell: str | Text) -> int:
    return cell_len(cell if isinstance(cell, str) else cell.plain)
