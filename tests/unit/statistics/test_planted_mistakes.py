"""What the benchmark of dirty pools counts: mistakes among the picks of a request, on rows whose figures say which."""

from __future__ import annotations

import numpy as np

from benchmarks import dirty
from benchmarks.dirty_pools import Scored

ROWS = 100
WRONG = np.arange(ROWS) % 5 == 0
"""A fifth."""


def scored() -> Scored:
    """Rows of which the wrong ones have the longest gradients, the largest losses, and prompts that do not help."""
    random = np.random.default_rng(0)
    values = random.standard_normal((ROWS, 32)).astype(np.float32)
    values[WRONG] *= 3
    losses = np.where(WRONG, 3.0, 1.0).astype(np.float32)
    return Scored(values, losses, np.full(ROWS, 3.0, dtype=np.float32), np.ones(ROWS, dtype=np.float32))


def broken_off() -> Scored:
    """Rows that differ in nothing but their end."""
    alike = np.ones(ROWS, dtype=np.float32)
    values = np.random.default_rng(0).standard_normal((ROWS, 32)).astype(np.float32)
    return Scored(values, alike, 2 * alike, np.where(WRONG, 15.0, 1.0).astype(np.float32))


def test_the_default_picks_no_row_that_the_figures_give_away_and_the_papers_setting_picks_nothing_else() -> None:
    assert dirty.share_picked(dirty.spec_of(), scored(), WRONG) == 0
    paper = dirty.spec_of(**dirty.SETTINGS[dirty.PAPERS])
    assert dirty.share_picked(paper, scored(), WRONG) == 5, "ten picks, all wrong, where a fifth of the rows is"


def test_the_default_picks_no_response_that_breaks_off() -> None:
    assert dirty.share_picked(dirty.spec_of(), broken_off(), WRONG) == 0
    assert dirty.precision(broken_off(), WRONG) == 1


def test_the_suspects_are_the_rows_that_the_figures_give_away() -> None:
    assert dirty.precision(scored(), WRONG) == 1
