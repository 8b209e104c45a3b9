"""Figures of picked rows against all: conflict before and after, lengths, sources; and epsilon against conflict."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from app.reports.figures.axes import Axes, Range, readable
from app.reports.figures.drawing import Drawing
from app.reports.figures.figure import Figure, Mark, Table
from app.reports.figures.lines import pick_asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.core.contracts.statistics import ConflictBeforeAfter, EpsilonConflict, Lengths, Sources
    from app.reports.figures.drawing import Point

BAR_PIXELS = 12.0
ROW_PIXELS = 50.0
LEAST_CONFLICT = 0.0001


def draw_conflict(found: ConflictBeforeAfter, width: float) -> Figure:
    """Cosines with the mean of the set, before and after; what is left of zero is conflict."""
    drawing = Drawing("conflict", "Rows by cosine with the mean gradient, before and after", width, _height(width))
    shares = {name: [count / one.rows for count in one.counts] for name, one in found.sets.items()}
    edges = found.edges
    axes = Axes(drawing, Range(edges[0], edges[-1]), Range.around([x for one in shares.values() for x in one]))
    left, right = axes.at(edges[0], 0)[0], axes.at(0, 0)[0]
    drawing.rectangle("against", (left, axes.top), right - left, axes.bottom - axes.top)
    axes.draw("cosine with the mean of the set", "share of rows", percent=True)
    for name, kind in (("all", "fill-all"), ("random", "outline-random"), ("picked", "outline-picked")):
        _histogram(axes, kind, edges, shares[name])
    drawing.text("note", (left + 6, axes.top + 14), "in conflict")
    _legend(drawing, [("fill-all", "all"), ("outline-random", "random"), ("outline-picked", "picked")])
    before, after = found.sets["random"], found.sets["picked"]
    caption = (
        f"Before: of {before.rows:,} rows drawn at random, {before.conflicting_share:.0%} pull against their own mean "
        f"(mean conflict {_conflict(before.mean_conflict)}). After: of the {after.rows:,} picked, "
        f"{after.conflicting_share:.0%} do (mean conflict {_conflict(after.mean_conflict)})."
    )
    rows = [
        [f"{low:.3f} to {high:.3f}", *(f"{shares[name][at]:.1%}" for name in ("all", "random", "picked"))]
        for at, (low, high) in enumerate(pairwise(edges))
    ]
    table = Table(["Cosine", "All", "Random", "Picked"], rows)
    marks = _bin_marks(axes, edges, [f"cosine {low}: all {a}, random {r}, picked {p}" for low, a, r, p in rows])
    nothing = None if before.mean_conflict or after.mean_conflict else "no row pulls against the others"
    return Figure("conflict", "Conflict before and after", caption, str(drawing), table, marks, "x", nothing)


def _conflict(mean: float) -> str:
    """A mean conflict as people read it: below the smallest that matters no digits are told."""
    return f"below {LEAST_CONFLICT}" if 0 < mean < LEAST_CONFLICT else readable(mean)


def draw_lengths(found: Lengths, width: float) -> Figure:
    """Tokens of a row, picked against all."""
    drawing = Drawing("lengths", "Rows by length in tokens, picked against all", width, _height(width))
    shares = {
        name: [count / sum(one.counts) for count in one.counts]
        for name, one in (("all", found.all), ("picked", found.picked))
    }
    axes = Axes(drawing, Range(0, found.edges[-1]), Range.around([*shares["all"], *shares["picked"]]))
    axes.draw("tokens of a row", "share of rows", percent=True)
    _histogram(axes, "fill-all", found.edges, shares["all"])
    _histogram(axes, "outline-picked", found.edges, shares["picked"])
    _legend(drawing, [("fill-all", "all"), ("outline-picked", "picked")])
    caption = (
        f"A picked row has {found.picked.median:,.0f} tokens in the median and {found.picked.mean:,.0f} on average; "
        f"a row of all, {found.all.median:,.0f} and {found.all.mean:,.0f}."
    )
    rows = [
        [f"{low:,} to {high - 1:,}", f"{of_all:.1%}", f"{of_picked:.1%}"]
        for low, high, of_all, of_picked in zip(
            found.edges, found.edges[1:], shares["all"], shares["picked"], strict=False
        )
    ]
    marks = _bin_marks(axes, found.edges, [f"{tokens} tokens: all {a}, picked {p}" for tokens, a, p in rows])
    return Figure("lengths", "Lengths", caption, str(drawing), Table(["Tokens", "All", "Picked"], rows), marks, "x")


def draw_sources(found: Sources, width: float) -> Figure:
    """Share of each source, picked against all."""
    counts = [(one.value, one.all, one.picked) for one in found.values]
    if found.other is not None:
        counts.append(("all others", found.other.all, found.other.picked))
    total_all = sum(of_all for _, of_all, _ in counts) or 1
    total_picked = sum(of_picked for _, _, of_picked in counts) or 1
    height = 30 + ROW_PIXELS * len(counts)
    drawing = Drawing("sources", f"Rows by {found.column}, picked against all", width, height)
    widest = max([*(one[1] / total_all for one in counts), *(one[2] / total_picked for one in counts)])
    scale = (width - 60) / widest
    marks = []
    for number, (value, of_all, of_picked) in enumerate(counts):
        y = 40 + ROW_PIXELS * number
        fits = int(width / 7.2)
        drawing.text("tick", (0, y), value if len(value) <= fits else f"{value[: fits - 1]}…", whole=value)
        for place, (kind, share) in enumerate((("all", of_all / total_all), ("picked", of_picked / total_picked))):
            top = y + 5 + place * BAR_PIXELS
            drawing.rectangle(f"bar-{kind}", (0, top), scale * share, BAR_PIXELS - 2)
            drawing.text("value", (scale * share + 6, top + 8), f"{share:.1%}")
        asked = {"source": value} if of_picked and number < len(found.values) else {}
        marks.append(
            Mark(scale * of_picked / total_picked, y + 10, f"{value}: {of_picked:,} picked of {of_all:,}", asked)
        )
    _legend(drawing, [("fill-all", "all"), ("bar-picked", "picked")])
    most = max(counts, key=lambda one: one[2] / total_picked - one[1] / total_all)
    of_picks, of_rows = f"{most[2] / total_picked:.0%}", f"{most[1] / total_all:.0%}"
    caption = (
        "The picks come from the sources in the proportions of all rows."
        if of_picks == of_rows
        else f"The selection favours {most[0]}: {of_picks} of the picks, {of_rows} of all."
    )
    rows = [
        [value, f"{of_all:,}", f"{of_picked:,}", f"{of_all / total_all:.1%}", f"{of_picked / total_picked:.1%}"]
        for value, of_all, of_picked in counts
    ]
    table = Table([found.column, "All", "Picked", "Share of all", "Share of picked"], rows)
    return Figure("sources", "Sources", caption, str(drawing), table, marks, "y")


def draw_epsilon(found: EpsilonConflict, spearman: float | None, width: float) -> Figure:
    """Epsilon of each pick against its conflict."""
    drawing = Drawing("epsilon", "Epsilon of each pick against its conflict", width, _height(width))
    axes = Axes(drawing, Range.around(found.conflict), Range.around(found.epsilon))
    axes.draw("conflict with the picks before", "epsilon, nats")
    drawing.dots("dots", [axes.at(x, y) for x, y in zip(found.conflict, found.epsilon, strict=True)])
    lowest = min(found.epsilon)
    caption = f"Overlap with earlier picks cost a pick up to {abs(lowest):.3g} nats of its own information."
    if not any(found.conflict):
        caption += " No pick is in conflict with those before it."
    elif spearman is not None:
        caption += f" Rank correlation of conflict and overlap: {spearman:.2f}."
    every = max(1, len(found.rank) // 12)
    rows = [
        [f"{rank:,}", readable(conflict), readable(epsilon)]
        for rank, conflict, epsilon in list(zip(found.rank, found.conflict, found.epsilon, strict=True))[::every]
    ]
    table = Table(["Pick", "Conflict", "Epsilon, nats"], rows)
    marks = [
        Mark(*axes.at(x, y), f"pick {rank:,}: conflict {readable(x)}, epsilon {readable(y)} nats", pick_asked(rank))
        for rank, x, y in zip(found.rank, found.conflict, found.epsilon, strict=True)
    ]
    nothing = None if any(found.conflict) else "every conflict is 0"
    return Figure("epsilon", "Epsilon against conflict", caption, str(drawing), table, marks, folded=nothing)


def _bin_marks(axes: Axes, edges: Sequence[float], texts: Sequence[str]) -> list[Mark]:
    """A mark in the middle of each bin."""
    return [Mark(*axes.at((low + high) / 2, 0), text) for low, high, text in zip(edges, edges[1:], texts, strict=False)]


def _histogram(axes: Axes, kind: str, edges: Sequence[float], shares: Sequence[float]) -> None:
    """Steps from the base line up to each share and back."""
    points: list[Point] = [axes.at(edges[0], 0)]
    for low, high, share in zip(edges, edges[1:], shares, strict=False):
        points += [axes.at(low, share), axes.at(high, share)]
    axes.drawing.path(kind, [*points, axes.at(edges[-1], 0)])


def _legend(drawing: Drawing, entries: Sequence[tuple[str, str]]) -> None:
    """Names of what is drawn, at the upper right."""
    x = drawing.width
    for kind, name in reversed(entries):
        x -= 7.5 * len(name)
        drawing.text("legend", (x, 14), name)
        x -= 22
        drawing.rectangle(f"key {kind}", (x, 5), 16, 10)
        x -= 14


def _height(width: float) -> float:
    return min(max(width * 0.58, 220.0), 340.0)
