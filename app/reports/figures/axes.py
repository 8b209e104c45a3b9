"""Two axes around a plot: scales, ticks, names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.reports.figures.drawing import Drawing, Point

TOP, BOTTOM, LEFT = 30.0, 42.0, 52.0
RIGHT = 24.0
GROUPED_FROM = 1000
TICK_PIXELS = 84.0
"""About how far apart ticks are."""


@dataclass(frozen=True, slots=True)
class Range:
    """Values from `low` to `high`, the latter larger."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float], *, zero: bool = True) -> Range:
        """The range of some values, with 0 in it if wanted; never empty."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        return cls(low, high) if high > low else cls(low, low + (abs(low) or 1.0))

    def ticks(self, count: int) -> list[float]:
        """About `count` round values inside."""
        step = _round_step((self.high - self.low) / max(count, 1))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


class Axes:
    """A plot area inside a drawing."""

    def __init__(self, drawing: Drawing, x: Range, y: Range, *, right: float = RIGHT) -> None:
        """Lay out.

        Args:
            drawing: Where to draw.
            x: Values along the bottom.
            y: Values along the left.
            right: Pixels to keep free on the right: for half a tick's number, or for names of lines.
        """
        self.drawing, self.x, self.y = drawing, x, y
        self.left, self.right = LEFT, drawing.width - right
        self.top, self.bottom = TOP, drawing.height - BOTTOM

    def at(self, x: float, y: float) -> Point:
        """Where a pair of values lies, in pixels."""
        across = (x - self.x.low) / (self.x.high - self.x.low)
        up = (y - self.y.low) / (self.y.high - self.y.low)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def draw(self, x_name: str, y_name: str, *, percent: bool = False) -> None:
        """Rules at the ticks of y, ticks of x, and what the axes are."""
        drawing = self.drawing
        for value in self.y.ticks(int((self.bottom - self.top) / (TICK_PIXELS * 0.6))):
            _, y = self.at(self.x.low, value)
            drawing.line("axis" if value == 0 else "rule", (self.left, y), (self.right, y))
            drawing.text("tick", (self.left - 8, y + 4), f"{value * 100:g}%" if percent else readable(value), "end")
        for value in self.x.ticks(int((self.right - self.left) / TICK_PIXELS)):
            x, _ = self.at(value, self.y.low)
            drawing.line("axis", (x, self.bottom), (x, self.bottom + 4))
            drawing.text("tick", (x, self.bottom + 18), readable(value), "middle")
        drawing.line("axis", (self.left, self.bottom), (self.right, self.bottom))
        drawing.text("name", (self.right, self.bottom + 36), x_name, "end")
        drawing.text("name", (0, 14), y_name)


def readable(value: float) -> str:
    """A number as a person writes it: four significant digits, thousands apart."""
    value += 0.0  # a zero with a sign would show it
    value += 0.0  # a zero with a sign would show it
    text = f"{value:,.0f}" if abs(value) >= GROUPED_FROM else f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}", 1) if text.startswith("-") else text


def _round_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9)), 10 * power)
