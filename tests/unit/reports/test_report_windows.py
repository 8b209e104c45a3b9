"""Conflict and loss of a schedule's windows, drawn."""

from __future__ import annotations

from app.core.contracts.schedule import ScheduleCurve
from app.reports.figures.windows import draw_windows


def curve(conflict: list[float | None], loss: list[float | None], trained: list[int]) -> ScheduleCurve:
    windows = list(range(len(conflict)))
    return ScheduleCurve(
        window=windows,
        steps=[0] * len(windows),
        picked=[2.0] * len(windows),
        log_det=[1.0] * len(windows),
        conflict=conflict,
        epsilon=[None] * len(windows),
        loss=loss,
        trained_after=trained,
        train_loss=[1.0] * len(trained),
        learning_rate=[0.1] * len(trained),
    )


def test_conflict_and_loss_are_drawn_with_the_trainings() -> None:
    """Two steps of one training are one line; a window without picks has no point."""
    conflict, loss = draw_windows(curve([0.1, 0.2, None, 0.4], [3.0, 3.0, 2.5, 2.0], [2, 2]), 400.0)
    assert (conflict.name, loss.name) == ("window_conflict", "window_loss")
    assert [mark.text for mark in conflict.marks] == ["window 1: 0.1", "window 2: 0.2", "window 4: 0.4"]
    assert conflict.svg.count('class="limit"') == 1
    assert conflict.folded is None
    top, bottom = loss.marks[0].y, loss.marks[-1].y
    assert bottom - top > 100, "the change of the loss has the whole height, not the part of it above 0"
    assert (
        loss.caption == "3 in the first tenth of the windows, 2 in the last; the proxy was trained 1 time in between."
    )
    assert loss.table.rows == [["1", "3"], ["2", "3"], ["3", "2.5"], ["4", "2"]]


def test_one_window_and_none_that_is_known_can_be_drawn() -> None:
    conflict, loss = draw_windows(curve([0.0], [None], []), 300.0)
    assert conflict.marks[0].text == "window 1: 0"
    assert conflict.folded == "every conflict is 0"
    assert loss.caption == "No window has a value."
