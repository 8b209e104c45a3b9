"""How much rows look wrong, by hand and in general."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.statistics.row_figures import RowFigures
from workers.statistics.suspects import default_filter, suspects, suspicion

NAN = math.nan


def figures(loss: list[float], ifd: list[float]) -> RowFigures:
    return RowFigures(np.array(loss), np.ones(len(loss)), np.zeros(len(loss)), np.array(ifd))


def test_the_larger_of_two_places_by_hand() -> None:
    found = suspicion(figures([1.0, 2.0, 3.0, 4.0], [0.9, 0.2, 0.3, NAN]))
    assert found.tolist() == pytest.approx([1.0, 0.5, 0.75, 1.0]), "of the three known IFDs 0.9 is the largest"
    assert suspicion(figures([1.0, 1.0], [NAN, NAN])).tolist() == [0.75, 0.75], "ties share their places"


def test_a_prompt_that_does_not_help_makes_a_suspect() -> None:
    assert suspects(figures([1, 1, 1], [0.4, 1.0, NAN])).tolist() == [False, True, False]
    assert not suspects(figures([1, 1, 1], [1.01, 1.0, 0.99])).any(), "a model that makes nothing of prompts"
    assert not suspects(figures([1, 1], [NAN, NAN])).any()


@given(
    rows=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 3)), min_size=1, max_size=60),
    at_least=st.integers(1, 60),
)
def test_the_default_drops_at_most_half_and_leaves_the_budget(rows: list[tuple[float, float]], at_least: int) -> None:
    at_least = min(at_least, len(rows))
    suspicious = suspicion(figures([loss for loss, _ in rows], [ifd for _, ifd in rows]))
    assert ((suspicious > 0) & (suspicious <= 1)).all()
    gone = default_filter(suspicious, at_least).get("suspicion", np.zeros(0, dtype=np.int64))
    alike = suspicious.min() == suspicious.max()
    assert len(gone) == (0 if alike else max(0, min(len(rows) // 2, len(rows) - at_least)))
    stays = np.setdiff1d(np.arange(len(rows)), gone)
    if len(gone):
        assert suspicious[gone].min() >= suspicious[stays].max()
