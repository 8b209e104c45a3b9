"""How many bins a distribution of the picks is drawn with."""

from __future__ import annotations

import numpy as np
import pytest

from workers.statistics.subset import bins_for, lengths


@pytest.mark.parametrize(("picks", "bins"), [(1, 5), (8, 5), (26, 6), (32, 7), (1000, 20), (1728, 24), (1_000_000, 24)])
def test_bins_fit_the_number_of_picks(picks: int, bins: int) -> None:
    """Twice the cube root, by Rice's rule: 32 picks over 24 bins would show gaps that mean nothing."""
    assert bins_for(picks) == bins


def test_lengths_of_32_picks_are_drawn_in_seven_bins() -> None:
    tokens = np.arange(1, 701)
    found = lengths(tokens, np.arange(0, 640, 20))
    assert found["edges"] == [0, 100, 200, 300, 400, 500, 600, 701]
    assert found["all"]["counts"] == [99, 100, 100, 100, 100, 100, 101]
    assert found["picked"]["counts"] == [5, 5, 5, 5, 5, 5, 2]
