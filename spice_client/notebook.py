"""What a notebook shows of a job, a subset and a curve, and a bar that moves while a job is waited for."""

from __future__ import annotations

import importlib
from html import escape
from typing import TYPE_CHECKING, Any

from spice_client.words import certificate_words, job_summary, progress_line, result_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spice_client.models import Curve, Job
    from spice_client.problems import SpiceError
    from spice_client.tables import Subset

WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 420, 180, 46, 22, 8
POINTS = 400
"""Of a line, at most: a screen has no more, and a notebook's file is not to hold a million."""
COLOURS = ("#1f6feb", "#8a8f98", "#b26a00", "#7a3db8", "#0a7d5a")
TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"


def job_html(job: Job) -> str:
    """State, numbers and certificate of a job, as HTML."""
    rows = "".join(
        f'<tr><th style="text-align:left;font-weight:400;opacity:.7">{escape(label)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for label, value in (result_lines(job.result) if job.result else _before(job))
    )
    return f'<div><b>{escape(job_summary(job))}</b><table style="{TABLE}">{rows}</table></div>'


def subset_html(subset: Subset) -> str:
    """The information of the first k picks as a curve, and what is proven about all of them."""
    said = f"certificate {certificate_words(subset.certificate)}" if subset.certificate else None
    head = f"<b>{len(subset):,} picks</b> of job {escape(subset.job_id)}"
    drawn = _drawn({"picks": (range(1, len(subset) + 1), subset.log_det)})
    return f"<div>{head}{drawn}{f'<p>{escape(said)}</p>' if said else ''}</div>"


def curve_html(curve: Curve) -> str:
    """The log-det curve of a job, with those of its baselines."""
    lines: dict[str, tuple[Sequence[int], Sequence[float]]] = {"picks": (curve.rank, curve.log_det)}
    lines |= {name: (one.rank, one.log_det) for name, one in curve.baselines.items()}
    return f"<div><b>{curve.selected:,} picks</b> of job {curve.job_id}{_drawn(lines)}</div>"


def _before(job: Job) -> list[tuple[str, str]]:
    if job.error:
        return [("error", job.error.title), ("detail", job.error.detail or "")]
    return [("stage", job.stage or ""), ("progress", progress_line(job.progress))] if job.stage else []


def _drawn(lines: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> str:
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


class NotebookView:
    """A bar in the notebook's output, which moves as the job does."""

    def __init__(self) -> None:
        self._display: Any = importlib.import_module("IPython.display")
        self._handle: Any = None
        self._job: Job | None = None

    def show(self, job: Job) -> None:
        """Show a job as it is now."""
        self._job = job
        self._put(bar_html(job))

    def waiting(self, failure: SpiceError) -> None:
        """Say that the service cannot be reached just now."""
        self._put(bar_html(self._job, f"waiting: {failure.title}"))

    def _put(self, html: str) -> None:
        shown = self._display.HTML(html)
        if self._handle is None:
            self._handle = self._display.display(shown, display_id=True)
        else:
            self._handle.update(shown)


def bar_html(job: Job | None, said: str = "") -> str:
    """How far a job is: a bar, and the numbers beside it."""
    if job is None:
        return escape(said)
    progress = None if job.ended else job.progress
    where = job.state if job.ended or not job.stage else job.stage
    share = f' max="{progress.total}" value="{progress.done}"' if progress and progress.total else ""
    bar = f'<progress{share} style="width:20em"></progress> ' if not job.ended else ""
    return f"<div>{bar}<b>{escape(where)}</b> {escape(said or progress_line(progress))}</div>"
