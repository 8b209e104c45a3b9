"""Build SVG: elements, paths, text that may be anything."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Point = tuple[float, float]
NAMESPACE = "http://www.w3.org/2000/svg"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Drawing:
    """One `<svg>`. Text and attributes are escaped by the serialiser, whatever they hold."""

    def __init__(self, name: str, title: str, width: float, height: float) -> None:
        """Start empty.

        Args:
            name: Of the figure; a class of the root.
            title: What a screen reader says.
            width: In pixels.
            height: In pixels.
        """
        self.width, self.height = width, height
        self._root = ET.Element(
            "svg",
            {
                "xmlns": NAMESPACE,
                "class": f"figure figure-{name}",
                "viewBox": f"0 0 {_number(width)} {_number(height)}",
                "width": _number(width),
                "height": _number(height),
                "role": "img",
                "aria-label": title,
            },
        )

    def line(self, kind: str, start: Point, end: Point) -> None:
        """A straight line of the class `kind`."""
        (x1, y1), (x2, y2) = start, end
        self._add("line", kind, x1=_number(x1), y1=_number(y1), x2=_number(x2), y2=_number(y2))

    def path(self, kind: str, points: Sequence[Point], *, closed: bool = False) -> None:
        """A line through points, or the area that they enclose."""
        if points:
            data = "M" + "L".join(f"{_number(x)},{_number(y)}" for x, y in points) + ("Z" if closed else "")
            self._add("path", kind, d=data)

    def dots(self, kind: str, points: Iterable[Point]) -> None:
        """A dot at each point, all as one element: lines of no length with round ends."""
        data = "".join(f"M{_number(x)},{_number(y)}h0" for x, y in points)
        if data:
            self._add("path", kind, d=data)

    def rectangle(self, kind: str, corner: Point, width: float, height: float) -> None:
        """A rectangle by its upper left corner."""
        x, y = corner
        self._add("rect", kind, x=_number(x), y=_number(y), width=_number(max(width, 0)), height=_number(height))

    def text(self, kind: str, at: Point, text: str, anchor: str = "start", *, whole: str | None = None) -> None:
        """Some words; `whole` is what a pointer that rests on them is shown."""
        element = self._add("text", kind, x=_number(at[0]), y=_number(at[1]))
        if anchor != "start":
            element.set("text-anchor", anchor)
        element.text = _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
        if whole is not None and whole != text:
            ET.SubElement(element, "title").text = _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", whole)

    def __str__(self) -> str:
        return ET.tostring(self._root, encoding="unicode")

    def _add(self, tag: str, kind: str, **attributes: str) -> ET.Element:
        return ET.SubElement(self._root, tag, {"class": kind, **attributes})


def _number(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")
