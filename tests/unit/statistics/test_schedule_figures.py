"""A schedule's windows as a curve and as numbers, from values by hand."""

from __future__ import annotations

import pytest

from app.core.contracts.schedule import ScheduleCurve, ScheduleFound, ScheduleState, ScoredWindow, TrainedStep
from workers.statistics.schedule import schedule_curve, schedule_found


def window(conflicts: tuple[float, ...], *, steps: int = 0, loss: float | None = 1.0, rows: int = 4) -> ScoredWindow:
    """With gains 2, 1, 0.5 and so on, and epsilons that are minus the conflicts."""
    gains = tuple(2.0 / 2**place for place in range(len(conflicts)))
    return ScoredWindow(
        rows=rows,
        steps=steps,
        loss=loss,
        alpha=1.0,
        stop_reason="budget",
        picks=tuple(range(len(conflicts))),
        gains=gains,
        epsilons=tuple(-one for one in conflicts),
        conflicts=conflicts,
    )


def test_a_schedule_s_numbers() -> None:
    """Tenths of 20 windows are two; a window of more rows weighs more in the loss; ranks leave first picks out."""
    windows = [window((0.0, 0.1, 0.2)) for _ in range(18)]
    windows[0] = window((0.0, 0.3, 0.6), loss=3.0, rows=12)
    windows += [window((0.0, 0.5, 0.7), loss=0.5, steps=1), window((), loss=None, rows=0, steps=1)]
    step = TrainedStep(windows=18, rows=54, loss=1.5, learning_rate=0.1)
    state = ScheduleState(windows=tuple(windows), steps=(step,))
    found = ScheduleFound.model_validate(schedule_found(state))
    assert (found.windows, found.steps) == (20, 1)
    assert found.conflict_first == pytest.approx((0.3 + 0.6 + 0.1 + 0.2) / 6)
    assert found.conflict_last == pytest.approx(1.2 / 3)
    assert found.loss_first == pytest.approx((3.0 * 12 + 1.0 * 4) / 16)
    assert found.loss_last == 0.5
    assert found.conflict_epsilon == pytest.approx(1.0)
    assert found.conflict_gain is not None
    assert found.conflict_gain < -0.5, "the third of each window has a smaller gain and a larger conflict"
    curve = ScheduleCurve.model_validate(schedule_curve(state))
    assert curve.window == list(range(20))
    assert curve.log_det[-2:] == [3.5, 0.0]
    assert (curve.conflict[-1], curve.epsilon[-1], curve.loss[-1]) == (None, None, None)
    assert (curve.trained_after, curve.train_loss, curve.learning_rate) == ([18], [1.5], [0.1])


def test_many_windows_are_told_as_means() -> None:
    state = ScheduleState(windows=tuple(window((0.0, number % 2), loss=float(number % 3)) for number in range(4001)))
    curve = ScheduleCurve.model_validate(schedule_curve(state))
    assert curve.window == list(range(0, 4001, 3))
    assert curve.loss[:2] == [1.0, 1.0]
    assert curve.conflict[:2] == [pytest.approx(1 / 6), pytest.approx(2 / 6)]
    assert curve.picked == [2.0] * 1334


def test_a_schedule_without_conflicts_correlates_with_nothing() -> None:
    found = ScheduleFound.model_validate(schedule_found(ScheduleState(windows=(window((0.0,)),))))
    assert (found.conflict_gain, found.conflict_epsilon) == (None, None)
