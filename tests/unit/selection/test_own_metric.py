"""Representative picks: the metric of the candidates themselves, and its weight where a request names none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.core.contracts.selection_request import SelectionSpec
from workers.selection import SelectionConfig, metric, select
from workers.stages import purposes
from workers.stages.objective import turned
from workers.stages.purposes import own_metric

CROWD, LONERS, SHARED, DIM = 40, 40, 12, 512
WEIGHT = 0.1


def crowd_and_loners() -> np.ndarray:
    """Unit rows: the first share a few directions, each of the others goes a way of its own."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((CROWD + LONERS, DIM))
    rows[:CROWD] = random.standard_normal((CROWD, SHARED)) @ random.standard_normal((SHARED, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_what_many_rows_teach_counts_more_than_what_one_row_does() -> None:
    rows = crowd_and_loners()
    config = SelectionConfig(budget=20)
    own = own_metric(rows, WEIGHT)
    assert own is not None
    plain, representative = select(rows, config).indices, select(own.of(rows, unit=False), config).indices
    assert (plain < CROWD).mean() <= 0.2, "a log-det of directions alone takes the loners"
    assert (representative < CROWD).mean() >= 0.4, "half of the rows are of the crowd"


def test_it_is_the_metric_of_a_target_with_the_candidates_as_the_target() -> None:
    rows = crowd_and_loners()
    own = own_metric(rows, WEIGHT)
    assert own is not None
    np.testing.assert_array_equal(own.of(rows), metric(rows, WEIGHT).of(rows))


def test_many_candidates_are_stood_for_by_a_sample_that_is_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purposes, "OWN_ROWS", 60)
    rows = crowd_and_loners()
    first, second = own_metric(rows, WEIGHT), own_metric(rows, WEIGHT)
    assert first is not None
    assert second is not None
    assert len(first.directions) <= 60
    np.testing.assert_array_equal(first.directions, second.directions)
    picks = select(first.of(rows, unit=False), SelectionConfig(budget=20)).indices
    assert (picks < CROWD).mean() >= 0.4, "the rows that are not in the sample are measured by it too"


def test_a_part_that_no_row_was_drawn_for_has_none_to_turn() -> None:
    """As of 30 candidates in 10 random parts: 4 in 10 such draws have a part without a row."""
    own = own_metric(crowd_and_loners(), WEIGHT)
    assert turned(np.empty((0, DIM), dtype=np.float32), own).shape == (0, DIM)


def test_nothing_is_turned_without_a_weight_or_without_a_direction() -> None:
    assert own_metric(crowd_and_loners(), 0.0) is None
    assert own_metric(np.zeros((3, 4), dtype=np.float32), WEIGHT) is None


@pytest.mark.parametrize(
    ("asked", "weight"),
    [
        ({}, WEIGHT),
        ({"normalize": "clip"}, WEIGHT),
        ({"normalize": "none"}, 0.0),
        ({"normalize": "none", "representative": 0.3}, 0.3),
        ({"representative": 0}, 0.0),
        ({"fisher": "reference"}, 0.0),
        ({"target": {"dataset": {"uri": "file:///data/target.jsonl"}}, "representative": 0.3}, 0.0),
    ],
)
def test_the_weight_of_a_request(asked: dict[str, Any], weight: float) -> None:
    assert SelectionSpec.model_validate({"budget": {"count": 1}, **asked}).own_weight == weight
