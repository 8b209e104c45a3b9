"""Jobs as text."""

from __future__ import annotations

from typing import Any

import pytest

from spice_client.models import Progress
from spice_client.words import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (60, "1:00"),
        (273.2, "4:33"),
        (3600, "1:00:00"),
        (90_000, "1 day, 1:00:00"),
    ],
)
def test_durations_are_as_short_as_they_can_be(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (
            {"done": 41984, "total": 100000, "unit": "samples", "rate": 212.4, "eta_s": 273.2},
            "41,984/100,000 samples, 212 a second, 4:33 left",
        ),
        ({"done": 5, "total": None, "unit": "rows", "rate": None, "eta_s": None}, "5 rows"),
        (
            {"done": 5, "total": 9, "unit": "picks", "rate": 12345.6, "eta_s": 0.0},
            "5/9 picks, 12,346 a second, 0 s left",
        ),
    ],
)
def test_progress_says_what_is_known(progress: dict[str, Any], text: str) -> None:
    assert Progress.model_validate(progress).line() == text
