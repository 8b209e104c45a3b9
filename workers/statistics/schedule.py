"""A schedule's windows as curves and as a few numbers: how conflict and loss go while the proxy is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workers.statistics.rank_correlation import rank_correlation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.core.contracts.schedule import ScheduleState, ScoredWindow

MOST_POINTS = 2000


def schedule_curve(state: ScheduleState) -> dict[str, Any]:
    """The windows in their order, `app.core.contracts.schedule.ScheduleCurve`; of many, means of runs of them."""
    size = max(1, -(-len(state.windows) // MOST_POINTS))
    firsts = range(0, len(state.windows), size)
    runs = [state.windows[first : first + size] for first in firsts]
    return {
        "window": list(firsts),
        "steps": [run[0].steps for run in runs],
        "picked": [float(np.mean([len(window.picks) for window in run])) for run in runs],
        "log_det": [float(np.mean([sum(window.gains) for window in run])) for run in runs],
        "conflict": [_conflict(run) for run in runs],
        "epsilon": [_mean([value for window in run for value in window.epsilons]) for run in runs],
        "loss": [_loss(run) for run in runs],
        "trained_after": [step.windows for step in state.steps],
        "train_loss": [step.loss for step in state.steps],
        "learning_rate": [step.learning_rate for step in state.steps],
    }


def schedule_found(state: ScheduleState) -> dict[str, Any]:
    """What the windows come to, `app.core.contracts.schedule.ScheduleFound`."""
    tenth = max(1, len(state.windows) // 10)
    first, last = state.windows[:tenth], state.windows[-tenth:]
    conflicts = [value for window in state.windows for value in window.conflicts[1:]]
    gains = [value for window in state.windows for value in window.gains[1:]]
    epsilons = [abs(value) for window in state.windows for value in window.epsilons[1:]]
    return {
        "windows": len(state.windows),
        "steps": len(state.steps),
        "conflict_first": _conflict(first),
        "conflict_last": _conflict(last),
        "loss_first": _loss(first),
        "loss_last": _loss(last),
        "conflict_gain": _correlation(conflicts, gains),
        "conflict_epsilon": _correlation(conflicts, epsilons),
    }


def _conflict(windows: Sequence[ScoredWindow]) -> float | None:
    return _mean([value for window in windows for value in window.conflicts])


def _loss(windows: Sequence[ScoredWindow]) -> float | None:
    """Of all candidates of some windows."""
    known = [(window.loss, window.rows) for window in windows if window.loss is not None]
    rows = sum(count for _, count in known)
    return sum(loss * count for loss, count in known) / rows if rows else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    return rank_correlation(x, y).coefficient if x else None
