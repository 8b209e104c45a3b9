"""Figures of a schedule: how conflict and loss go from window to window while the proxy is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from app.reports.figures.axes import Axes, Range
from app.reports.figures.drawing import Drawing
from app.reports.figures.figure import Figure, Mark, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.core.contracts.schedule import ScheduleCurve

MOST_RULES = 60
"""Trainings that are drawn as lines: more would hide the curve."""
TABLE_ROWS = 12


def draw_windows(curve: ScheduleCurve, width: float) -> list[Figure]:
    """Conflict and loss by window; upright lines are where the proxy was trained."""
    conflict = _draw(
        curve, curve.conflict, ("window_conflict", "Conflict by window"), "mean conflict of the picks", width, zero=True
    )
    loss = _draw(curve, curve.loss, ("window_loss", "Loss by window"), "loss a response token, nats", width, zero=False)
    nothing = None if any(curve.conflict) else "every conflict is 0"
    return [replace(conflict, folded=nothing), loss]


def _draw(
    curve: ScheduleCurve, values: Sequence[float | None], named: tuple[str, str], unit: str, width: float, *, zero: bool
) -> Figure:
    """A line over the windows; its axis begins at 0 if wanted, as small changes of a loss are lost in its height."""
    (name, title), last = named, max(curve.window[-1], 1)
    known = [(window, value) for window, value in zip(curve.window, values, strict=True) if value is not None]
    drawing = Drawing(name, title, width, min(max(width * 0.58, 220.0), 400.0))
    axes = Axes(drawing, Range(0, last), Range.around([value for _, value in known], zero=zero))
    axes.draw("windows", unit)
    trained = sorted(set(curve.trained_after))
    for window in trained if len(trained) <= MOST_RULES else []:
        x, _ = axes.at(min(window - 0.5, last), axes.y.low)
        drawing.line("limit", (x, axes.top), (x, axes.bottom))
    drawing.path("line series-0", [axes.at(window, value) for window, value in known])
    marks = [Mark(*axes.at(window, value), f"window {window + 1:,}: {value:.4g}") for window, value in known]
    step = max(1, -(-len(known) // TABLE_ROWS))
    table = Table(["Window", title], [[f"{window + 1:,}", f"{value:.4g}"] for window, value in known[::step]])
    return Figure(name, title, _caption(known, len(trained)), str(drawing), table, marks, "x")


def _caption(known: Sequence[tuple[int, float]], trainings: int) -> str:
    """From the first tenth of the windows to the last."""
    if not known:
        return "No window has a value."
    tenth = max(1, len(known) // 10)
    first, last = (sum(value for _, value in some) / tenth for some in (known[:tenth], known[-tenth:]))
    return (
        f"{first:.4g} in the first tenth of the windows, {last:.4g} in the last; the proxy was trained {trainings:,} "
        f"time{'' if trainings == 1 else 's'} in between."
    )
