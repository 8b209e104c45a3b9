"""Figures along the number of picks: the log-det curve of all methods, and the decay of the marginal gain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.reports.figures.axes import Axes, Range, readable
from app.reports.figures.drawing import Drawing
from app.reports.figures.figure import Figure, Mark, Table

if TYPE_CHECKING:
    from app.core.contracts.statistics import EarlyStop
    from app.results.schemas import Curve, CurveLine

TABLE_ROWS = 12
ERROR_BARS = 8
MARKS = 200
"""Marks of a line: more than a pointer can tell apart."""
LABEL_PIXELS = 15.0
LETTER_PIXELS = 8.5  # of bold type, in the widest of the fonts that a browser may take


def draw_curve(curve: Curve, method: str, width: float) -> Figure:
    """Log-det against the number of picks, all methods in one plot; standard deviations as error bars."""
    lines: dict[str, CurveLine] = {method: curve, **curve.baselines}
    drawing = Drawing("curve", "Log-det against the number of picks", width, _height(width, 0.46))
    highest = [
        value + deviation
        for line in lines.values()
        for value, deviation in zip(line.log_det, line.log_det_std or [0.0] * len(line.rank), strict=True)
    ]
    axes = Axes(
        drawing, Range(0, curve.selected), Range.around(highest), right=14 + LETTER_PIXELS * max(map(len, lines))
    )
    axes.draw("picks", "log det, nats")
    for number, line in reversed(list(enumerate(lines.values()))):
        points = [(0.0, 0.0), *zip(line.rank, line.log_det, strict=True)]
        drawing.path(f"line series-{number}", [axes.at(x, y) for x, y in points])
        for rank, low, high in _error_bars(line):
            (x, y_low), (_, y_high) = axes.at(rank, low), axes.at(rank, high)
            drawing.line(f"error series-{number}", (x, y_low), (x, y_high))
            for y in (y_low, y_high):
                drawing.line(f"error series-{number}", (x - 3, y), (x + 3, y))
    ends = {name: axes.at(line.rank[-1], line.log_det[-1])[1] for name, line in lines.items()}
    for name, y in _apart(ends).items():
        drawing.text(f"label series-{list(lines).index(name)}", (axes.right + 8, y + 4), name)
    marks = [mark for name, line in lines.items() for mark in _curve_marks(axes, line, name, of_job=name == method)]
    return Figure("curve", "Information", _curve_caption(lines, method), str(drawing), _curve_table(lines), marks)


def draw_gains(curve: CurveLine, stop: EarlyStop | None, width: float) -> Figure:
    """Marginal gain of each pick, and where the early stop is."""
    drawing = Drawing("gains", "Marginal gain of each pick", width, _height(width, 0.58))
    limit = [] if stop is None else [stop.threshold]
    axes = Axes(drawing, Range(0, max(curve.selected, 2)), Range.around([*curve.marginal_gains, *limit]))
    axes.draw("picks", "marginal gain, nats")
    points = list(zip(curve.rank, curve.marginal_gains, strict=True))
    drawing.path("line series-0", [axes.at(x, y) for x, y in points])
    if stop is not None:
        drawing.line("limit", axes.at(0, stop.threshold), axes.at(axes.x.high, stop.threshold))
        _, y = axes.at(0, stop.threshold)
        drawing.text("note", (axes.right, y - 6), f"{readable(stop.ratio)} of the first gain", "end")
        if stop.kept is not None:
            x, y = axes.at(stop.kept, stop.threshold)
            drawing.line("limit", (x, axes.top), (x, axes.bottom))
            drawing.dots("mark", [(x, y)])
    shown = [points[at] for at in _some(len(points))]
    table = Table(["Pick", "Marginal gain, nats"], [[f"{rank:,}", f"{gain:.4g}"] for rank, gain in shown])
    marks = [
        Mark(*axes.at(rank, gain), f"pick {rank:,}: {gain:.4g} nats", pick_asked(rank))
        for rank, gain in (points[at] for at in _some(len(points), MARKS))
    ]
    caption = _gains_caption(curve, stop)
    return Figure("gains", "Decay of the marginal gain", caption, str(drawing), table, marks, "x")


def pick_asked(rank: int) -> dict[str, str]:
    """What asks for the pick of a rank."""
    return {"first_rank": str(rank), "last_rank": str(rank)}


def _curve_marks(axes: Axes, line: CurveLine, name: str, *, of_job: bool) -> list[Mark]:
    return [
        Mark(
            *axes.at(line.rank[at], line.log_det[at]),
            f"{_picks(line.rank[at])} by {name}: {line.log_det[at]:.4g} nats",
            pick_asked(line.rank[at]) if of_job else {},
        )
        for at in _some(len(line.rank), MARKS)
    ]


def _curve_caption(lines: dict[str, CurveLine], method: str) -> str:
    main = lines[method]
    hold = "holds" if main.selected == 1 else "hold"
    words = [f"{_picks(main.selected)} by {method} {hold} {main.log_det[-1]:.4g} nats."]
    for name, line in lines.items():
        if name == method:
            continue
        bars = ""
        if line.log_det_std is not None:
            bars = f" \N{PLUS-MINUS SIGN} {line.log_det_std[-1]:.2g} (standard deviation of {line.runs} runs)"
        words.append(f"As many by {name} hold {line.log_det[-1]:.4g}{bars}.")
    return " ".join(words)


def _gains_caption(curve: CurveLine, stop: EarlyStop | None) -> str:
    first, last = curve.marginal_gains[0], curve.marginal_gains[-1]
    words = f"The first pick added {first:.4g} nats, the last {last:.4g}."
    if stop is None:
        return words
    asked = f"an early stop at {readable(stop.ratio)} of the first gain"
    if not stop.requested:
        return f"{words} {asked[0].upper()}{asked[1:]} would " + (
            "not have come." if stop.kept is None else f"have kept {_picks(stop.kept)}."
        )
    return f"{words} The job asked for {asked}: " + (
        "it did not come." if stop.kept is None else f"it came after {_picks(stop.kept)}."
    )


def _curve_table(lines: dict[str, CurveLine]) -> Table:
    main = next(iter(lines.values()))
    rows = []
    for rank in [main.rank[at] for at in _some(len(main.rank))]:
        cells = [f"{rank:,}"]
        for line in lines.values():
            # A line over several runs may have other ranks than the main one: the last one up to this.
            at = max((at for at, known in enumerate(line.rank) if known <= rank), default=0)
            deviation = "" if line.log_det_std is None else f" \N{PLUS-MINUS SIGN} {line.log_det_std[at]:.2g}"
            cells.append(f"{line.log_det[at]:.4g}{deviation}")
        rows.append(cells)
    return Table(["Picks", *(f"{name}, nats" for name in lines)], rows)


def _error_bars(line: CurveLine) -> list[tuple[int, float, float]]:
    """Rank, lower and upper end of some bars."""
    if line.log_det_std is None:
        return []
    return [
        (line.rank[at], line.log_det[at] - line.log_det_std[at], line.log_det[at] + line.log_det_std[at])
        for at in _some(len(line.rank), ERROR_BARS)
    ]


def _some(count: int, most: int = TABLE_ROWS) -> list[int]:
    """At most `most` places out of `count`, evenly, the last among them."""
    points = min(count, most)
    return sorted({-(-count * number // points) - 1 for number in range(1, points + 1)})


def _apart(places: dict[str, float]) -> dict[str, float]:
    """Labels moved down as far as it takes that none covers another."""
    moved: dict[str, float] = {}
    above = float("-inf")
    for name, y in sorted(places.items(), key=lambda item: item[1]):
        above = moved[name] = max(y, above + LABEL_PIXELS)
    return moved


def _height(width: float, share: float) -> float:
    return min(max(width * share, 220.0), 400.0)


def _picks(number: int) -> str:
    return "1 pick" if number == 1 else f"{number:,} picks"
