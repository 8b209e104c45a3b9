"""What a notebook shows: tables, curves and bars, as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Lines: TypeAlias = Mapping[str, tuple[Sequence[int], Sequence[float]]]

WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 420, 180, 46, 22, 8
POINTS = 400
"""Of a line, at most: a screen has no more, and a notebook's file is not to hold a million."""
COLOURS = ("#1f6feb", "#8a8f98", "#b26a00", "#7a3db8", "#0a7d5a")
TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"


def table_html(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """A title, and a table of labels and what there is to say."""
    cells = "".join(
        f'<tr><th style="text-align:left;font-weight:400;opacity:.7">{escape(label)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for label, value in rows
    )
    return f'<div><b>{escape(title)}</b><table style="{TABLE}">{cells}</table></div>'


def curves_html(title: str, lines: Lines, below: str = "") -> str:
    """A title, log-det curves in nats by name, each against its ranks, and a sentence below them."""
    return f"<div><b>{escape(title)}</b>{_drawn(lines)}{f'<p>{escape(below)}</p>' if below else ''}</div>"


def bar_html(where: str, text: str, share: tuple[int, int] | None = None, *, moves: bool = True) -> str:
    """How far something is: a bar while it moves, `share` (done, total) of it where that is known, and words."""
    known = f' max="{share[1]}" value="{share[0]}"' if share else ""
    bar = f'<progress{known} style="width:20em"></progress> ' if moves else ""
    return f"<div>{bar}<b>{escape(where)}</b> {escape(text)}</div>"


def _drawn(lines: Lines) -> str:
    """Lines of log-det in nats against the number of picks, as SVG; each begins at nothing."""
    right = max((ranks[-1] for ranks, _ in lines.values() if ranks), default=0)
    top = max((max(values) for _, values in lines.values() if values), default=0.0)
    if not right or top <= 0:
        return ""
    drawn = "".join(
        f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{_points(ranks, values, right, top)}">'
        f"<title>{escape(name)}</title></polyline>"
        for (name, (ranks, values)), colour in zip(lines.items(), COLOURS * len(lines), strict=False)
    )
    named = "".join(
        f'<tspan fill="{colour}" dx="8">{escape(name)}</tspan>'
        for name, colour in zip(lines, COLOURS * len(lines), strict=False)
    )
    axis = HEIGHT - BOTTOM
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'style="display:block;font:12px sans-serif" aria-label="log-det in nats against the number of picks">'
        f'<path d="M{LEFT} {MARGIN}V{axis}H{WIDTH - MARGIN}" fill="none" stroke="currentColor" opacity=".4"/>'
        f'<g fill="currentColor" opacity=".8"><text x="{LEFT - 6}" y="{MARGIN + 10}" text-anchor="end">{top:.3g}</text>'
        f'<text x="{LEFT - 6}" y="{axis}" text-anchor="end">0</text>'
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 6}" text-anchor="end">{right:,} picks</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">nats</text></g>{drawn}'
        f'<text x="{LEFT + 4}" y="{MARGIN + 10}">{named}</text></svg>'
    )


def _points(ranks: Sequence[int], values: Sequence[float], right: int, top: float) -> str:
    step = max(1, -(-len(ranks) // POINTS))
    kept = [*range(0, len(ranks) - 1, step), len(ranks) - 1]
    across, up = (WIDTH - LEFT - MARGIN) / right, (HEIGHT - BOTTOM - MARGIN) / top
    places = [(0, 0.0), *((ranks[place], values[place]) for place in kept)]
    return " ".join(f"{LEFT + rank * across:.1f},{HEIGHT - BOTTOM - value * up:.1f}" for rank, value in places)
