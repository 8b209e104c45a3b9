"""Small multiples of a sweep: the curve of each combination of settings to one scale; and how sure the picks are."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from app.reports.figures.axes import readable
from app.reports.figures.drawing import Drawing
from app.reports.figures.figure import Figure, Mark, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.core.contracts.statistics import SweepCurve

PANEL_WIDTH, PANEL_HEIGHT = 190.0, 118.0
GAP, HEAD, FOOT = 16.0, 30.0, 20.0
BAR_HEIGHT = 140.0


def draw_sweep(points: Sequence[SweepCurve], width: float) -> Figure:
    """A small plot for each combination: its curve against those of all others."""
    columns = max(1, min(len(points), int((width + GAP) / (PANEL_WIDTH + GAP))))
    panel = (width - GAP * (columns - 1)) / columns
    rows = -(-len(points) // columns)
    drawing = Drawing("sweep", "Log-det curves by setting", width, rows * (PANEL_HEIGHT + GAP))
    named = _names(points)
    for number, point in enumerate(points):
        left, top = (number % columns) * (panel + GAP), (number // columns) * (PANEL_HEIGHT + GAP)
        _panel(drawing, point, points, named[number], (left, top), panel)
    best = max(points, key=lambda one: one.certificate)
    caption = (
        f"Each plot is one of {len(points)} settings; grey are the others. Curves at another alpha or at other lengths "
        f"are on another scale. The picks that have least in common with the subset share "
        f"{min(one.shared for one in points):.0%} of all rows of both with it, and the highest certificate is "
        f"{best.certificate:.1%}."
    )
    rows_of_table = [
        [
            readable(one.conflict_penalty),
            "none" if one.early_stop_ratio is None else readable(one.early_stop_ratio),
            readable(one.alpha),
            _lengths(one),
            f"{one.selected:,}",
            f"{one.log_det[-1]:.4g}" if one.log_det else "0",
            f"{one.certificate:.1%}",
            f"{one.shared:.0%}",
        ]
        for one in points
    ]
    heads = ["Lambda", "Omega", "Alpha", "Lengths", "Picks", "Log det, nats", "Certificate", "Rows shared"]
    return Figure("sweep", "With other settings", caption, str(drawing), Table(heads, rows_of_table))


def draw_stability(bins: Sequence[int], width: float) -> Figure:
    """Picks by the share of the reselections that pick them."""
    drawing = Drawing("stability", "Picks by how often they are picked again", width, BAR_HEIGHT + HEAD + FOOT)
    highest, each = max([*bins, 1]), width / len(bins)
    for place, count in enumerate(bins):
        height = BAR_HEIGHT * count / highest
        drawing.rectangle("bar-picked", (place * each + 1, HEAD + BAR_HEIGHT - height), each - 2, height)
        if count:
            drawing.text("tick", ((place + 0.5) * each, HEAD + BAR_HEIGHT - height - 4), f"{count:,}", "middle")
    drawing.line("axis", (0, HEAD + BAR_HEIGHT), (width, HEAD + BAR_HEIGHT))
    drawing.text("tick", (0, HEAD + BAR_HEIGHT + 16), "0%")
    drawing.text("tick", (width, HEAD + BAR_HEIGHT + 16), "100% of the reselections", "end")
    total = sum(bins)
    caption = (
        f"{bins[-1]:,} of {total:,} picks were picked by nine tenths or more of the reselections, "
        f"{sum(bins[:5]):,} by less than half: those owe their place to chance."
    )
    shares = [f"{low}% to {high}%" for low, high in pairwise(range(0, 101, 100 // len(bins)))]
    rows = [[share, f"{count:,}"] for share, count in zip(shares, bins, strict=True)]
    marks = [
        Mark((place + 0.5) * each, HEAD, f"picked again by {share}: {count} picks")
        for place, (share, count) in enumerate(rows)
    ]
    table = Table(["Picked again by", "Picks"], rows)
    return Figure("stability", "How sure the picks are", caption, str(drawing), table, marks, "x")


def _panel(
    drawing: Drawing,
    point: SweepCurve,
    points: Sequence[SweepCurve],
    name: str,
    corner: tuple[float, float],
    width: float,
) -> None:
    left, top = corner
    picks = max([one.selected for one in points] + [1])
    height = max([one.log_det[-1] for one in points if one.log_det] + [1e-12])
    floor, room = top + PANEL_HEIGHT - FOOT, PANEL_HEIGHT - HEAD - FOOT

    def line(one: SweepCurve) -> list[tuple[float, float]]:
        pairs = [(0.0, 0.0), *zip(one.rank, one.log_det, strict=True)]
        return [(left + x / picks * width, floor - y / height * room) for x, y in pairs]

    drawing.text("label", (left, top + 12), name)
    drawing.text("tick", (left, top + 25), f"{point.selected:,} picks, {point.certificate:.0%} proven")
    for other in points:
        if other is not point:
            drawing.path("rule", line(other))
    drawing.path("line series-0", line(point))
    drawing.line("axis", (left, floor), (left + width, floor))
    drawing.text("tick", (left + width, floor + 14), f"{point.shared:.0%} of rows shared", "end")


def _names(points: Sequence[SweepCurve]) -> list[str]:
    """What tells the settings apart: those fields that differ among them."""
    fields = {
        "lambda": [readable(one.conflict_penalty) for one in points],
        "omega": ["none" if one.early_stop_ratio is None else readable(one.early_stop_ratio) for one in points],
        "alpha": [readable(one.alpha) for one in points],
        "lengths": [_lengths(one) for one in points],
    }
    differ = {name: values for name, values in fields.items() if len(set(values)) > 1} or {"lambda": fields["lambda"]}
    return [", ".join(f"{name} {values[at]}" for name, values in differ.items()) for at in range(len(points))]


def _lengths(one: SweepCurve) -> str:
    return one.normalize if isinstance(one.normalize, str) else f"clip {readable(one.normalize.clip)}"
