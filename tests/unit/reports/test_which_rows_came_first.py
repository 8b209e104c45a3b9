"""What is said of a row that was not picked: only of the plain greedy does a larger budget come to it."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.contracts.selection_request import SelectionSpec
from app.results.why import came_first

LARGER, EXCLUDED, ENDED, OTHERS = "a larger budget", "excludes the row", "ended before", "by the method, or by what"


@pytest.mark.parametrize(
    ("asked", "stop", "said"),
    [
        ({}, "budget", LARGER),
        ({"budget": {"tokens": 90}, "method": "fisher"}, "budget", LARGER),
        ({"constraints": {"include": [7]}}, "budget", LARGER),
        ({"constraints": {"exclude": [7]}}, "budget", EXCLUDED),
        ({"constraints": {"exclude": [8]}}, "budget", OTHERS),
        ({"constraints": {"exclude": {"column": "bad"}}}, "budget", OTHERS),
        ({"constraints": {"sources": {"code": {"max": 0.5}}}}, "budget", OTHERS),
        ({"constraints": {"near_duplicates": {"cosine": 0.9}}}, "exhausted", OTHERS),
        ({"early_stop_ratio": 0.5}, "early_stop", ENDED),
        ({"method": "length"}, "budget", OTHERS),
        ({"method": "ifd"}, "exhausted", OTHERS),
        ({"fisher": "reference"}, "budget", OTHERS),
    ],
)
def test_a_larger_budget_is_promised_where_it_would_come_to_the_row(
    asked: dict[str, Any], stop: str, said: str
) -> None:
    spec = SelectionSpec.model_validate({"budget": {"count": 5}, **asked})
    assert said in came_first(spec, stop, row=7)
