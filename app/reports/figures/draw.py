"""All figures of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.reports.figures.distributions import draw_conflict, draw_epsilon, draw_lengths, draw_sources
from app.reports.figures.lines import draw_curve, draw_gains
from app.reports.figures.multiples import draw_stability, draw_sweep
from app.reports.figures.windows import draw_windows

if TYPE_CHECKING:
    from app.core.contracts.statistics import Statistics
    from app.reports.figures.figure import Figure
    from app.results.schemas import Conflicts, Curve

FIGURES: Final = ("curve", "gains", "epsilon", "conflict", "lengths", "sources", "sweep", "stability")


def draw_figures(
    curve: Curve, conflicts: Conflicts, statistics: Statistics, method: str, width: float, wide: float
) -> list[Figure]:
    """Draw them.

    Args:
        curve: The log-det curves, thinned to what a figure can show.
        conflicts: For the correlation of conflict and epsilon.
        statistics: What else there is to draw.
        method: The job's own method, which names its line.
        width: Of a figure, in pixels.
        wide: Of the curve, in pixels.

    Returns:
        Those of `FIGURES`; without `sources` where the dataset does not tell them, and without `sweep` and `stability`
        where the job asked for none. Of a job with a schedule also `window_conflict` and `window_loss`.
    """
    figures = [
        draw_curve(curve, method, wide),
        draw_gains(curve, statistics.early_stop, width),
        draw_epsilon(statistics.epsilon_conflict, conflicts.spearman_conflict_epsilon, width),
        draw_conflict(statistics.conflict_before_after, width),
        draw_lengths(statistics.lengths, width),
    ]
    if statistics.schedule is not None:
        figures += draw_windows(statistics.schedule, width)
    if statistics.sources is not None:
        figures.append(draw_sources(statistics.sources, width))
    if statistics.sweep:
        figures.append(draw_sweep(statistics.sweep, wide))
    if statistics.stability is not None:
        figures.append(draw_stability(statistics.stability, width))
    return figures
