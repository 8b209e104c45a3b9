"""What rows that were not picked would add, against the plain definition in float64."""

from __future__ import annotations

import numpy as np
import pytest

from workers.data.stopping import Stopped
from workers.statistics import passed_over as module
from workers.statistics.passed_over import passed_over

PICKED = np.array([7, 2, 19])


def sketches() -> np.ndarray:
    values = np.random.default_rng(5).standard_normal((24, 6)).astype(np.float32)
    values[11] = 2 * values[2]  # the same direction as a pick
    values[13] = 0
    return values


def log_det(values: np.ndarray, rows: list[int], alpha: float) -> float:
    chosen = values[rows].astype(np.float64)
    return float(np.linalg.slogdet(np.eye(len(rows)) + alpha * chosen @ chosen.T)[1])


def test_the_gain_at_the_end_and_the_nearest_pick_are_those_of_the_definition() -> None:
    values, alpha = sketches(), 0.3
    found = passed_over(values, PICKED, alpha, lambda: False)
    assert found is not None
    whole = log_det(values, PICKED.tolist(), alpha)
    for row in set(range(len(values))) - {*PICKED.tolist(), 13}:
        assert found.gain[row] == pytest.approx(log_det(values, [*PICKED.tolist(), row], alpha) - whole, rel=1e-4)
        cosines = [
            float(values[row] @ values[pick] / np.linalg.norm(values[row]) / np.linalg.norm(values[pick]))
            for pick in PICKED
        ]
        assert found.nearest[row] == int(np.argmax(cosines))
        assert found.cosine[row] == pytest.approx(max(cosines), abs=1e-5)
    assert (found.nearest[11], found.cosine[11]) == (1, pytest.approx(1))
    assert np.isnan(found.gain[PICKED]).all()
    assert (found.gain[13], np.isnan(found.nearest[13])) == (0, True)


def test_too_much_work_is_left_alone_and_a_stop_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stopped):
        passed_over(sketches(), PICKED, 0.3, lambda: True)
    monkeypatch.setattr(module, "MOST_WORK", 24 * 3 * (6 + 3) - 1)
    assert passed_over(sketches(), PICKED, 0.3, lambda: False) is None
