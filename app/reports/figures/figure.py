"""What a figure consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Pointing = Literal["x", "y", "both"]


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
class Mark:
    """A place of a drawing that has something to say.

    Attributes:
        x: In pixels from the left of the drawing.
        y: In pixels from its top.
        text: Its values in words.
        rows: What asks `GET /jobs/{id}/rows` for the picks behind it, by parameter; empty if no picks are.
    """

    x: float
    y: float
    text: str
    rows: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        name: As in its URL.
        title: What it shows.
        caption: What can be read off it, in words.
        svg: The drawing, one `<svg>` element; its classes are those of `figures.css`.
        table: The numbers behind it.
        marks: What a pointer is told, where it points.
        pointing: By which distance a pointer finds its mark: along one axis, or in the plane.
        folded: Why it has nothing to show and is folded away; None where it has.
    """

    name: str
    title: str
    caption: str
    svg: str
    table: Table
    marks: Sequence[Mark] = ()
    pointing: Pointing = "both"
    folded: str | None = None
