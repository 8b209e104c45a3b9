"""Shares of picks that are made window by window, by their definition over all picks."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from workers.selection import (
    Constraints,
    Course,
    Selection,
    SelectionConfig,
    Shares,
    Sources,
    WindowShares,
    select,
    select_in_window,
)

CASES = 150


@dataclass
class Windows:
    """Rows of three sources in windows, and what was picked of them.

    Attributes:
        shares: Of the picks, with the source of each row.
        size: Rows of a window.
        keep: Picks of a window.
        ratio: At which a window ends early, or None.
        include: Rows that have to be picked.
    """

    shares: Shares
    size: int
    keep: int
    ratio: float | None = None
    include: tuple[int, ...] = ()

    def picked(self) -> list[list[int]]:
        """Picks of each window, as a schedule takes them."""
        rows = len(self.shares.of_row)
        sketches = np.random.default_rng(rows).standard_normal((rows, 5))
        windows = [np.arange(start, start + self.size) for start in range(0, rows, self.size)]
        held, found = np.zeros(3, dtype=np.int64), []
        for number, window in enumerate(windows):
            must = np.flatnonzero(np.isin(window, self.include))

            def run(
                count: int | None, sources: Sources | None, window: np.ndarray = window, must: np.ndarray = must
            ) -> Selection:
                config = SelectionConfig(budget=count, early_stop_ratio=self.ratio)
                return select(sketches[window], config, Constraints(include=must, sources=sources))

            later = np.bincount(self.shares.of_row[[row for row in self.include if row > window[-1]]], minlength=3)
            course = Course(held, later, self.keep * len(windows), last=number + 1 == len(windows))
            within = WindowShares.of_window(self.shares, course, window, np.ones(len(window), dtype=bool), must)
            selection = select_in_window(run, within, max(self.keep, len(must)))
            picks = [] if selection is None else window[selection.indices].tolist()
            held = held + np.bincount(self.shares.of_row[picks], minlength=3) if picks else held
            found.append(picks)
        return found

    def over(self, picks: list[int]) -> list[float]:
        """By how many rows each source has more than its largest share, not rounded."""
        held = np.bincount(self.shares.of_row[picks], minlength=3)
        return (held - self.shares.most * len(picks)).tolist()

    def holds(self, picks: list[int]) -> bool:
        """Whether the shares hold of some picks, by the words of the request."""
        held, count = np.bincount(self.shares.of_row[picks], minlength=3).tolist(), len(picks)
        return all(
            ceil(round(low * count, 6)) <= rows <= floor(round(high * count, 6))
            for low, high, rows in zip(self.shares.least, self.shares.most, held, strict=True)
        )

    def possible(self) -> bool:
        """Whether as many rows as are planned can have such shares at all."""
        count = self.keep * len(self.shares.of_row) // self.size
        least = [ceil(round(low * count, 6)) for low in self.shares.least]
        most = [floor(round(high * count, 6)) for high in self.shares.most]
        return sum(least) <= count <= sum(most) and all(low <= high for low, high in zip(least, most, strict=True))


def drawn(seed: int, *, plenty: bool) -> Windows:
    """Shares at random; with plenty each window could be picked from one source alone."""
    random = np.random.default_rng(seed)
    keep = int(random.integers(1, 5))
    size = 3 * keep if plenty else int(random.integers(keep, 3 * keep + 1))
    windows = int(random.integers(1, 8))
    least = random.dirichlet(np.ones(3)) * random.uniform(0, 0.9)
    most = np.minimum(1.0, least + random.uniform(0.0, 0.6, 3))
    rows = size * windows
    of_row = np.tile(np.repeat(np.arange(3), keep), windows) if plenty else random.integers(0, 3, rows)
    ratio = None if plenty or random.random() < 0.5 else 0.5
    include = () if plenty else tuple(np.flatnonzero(random.random(rows) < 0.05).tolist())
    return Windows(Shares(("a", "b", "c"), of_row, least, most), size, keep, ratio, include)


def test_with_rows_of_each_source_in_each_window_the_shares_hold_in_the_end() -> None:
    """Whatever the shares are, if as many picks can have them at all; and no window picks less than it keeps."""
    seen = 0
    for seed in range(CASES):
        case = drawn(seed, plenty=True)
        if not case.possible():
            continue
        seen += 1
        windows = case.picked()
        picks = [row for window in windows for row in window]
        assert [len(window) for window in windows] == [case.keep] * len(windows), seed
        assert case.holds(picks), seed
    assert seen > CASES / 6


def test_no_window_picks_beyond_the_largest_shares_but_for_a_fraction_of_a_row() -> None:
    """Whatever rows it has and wherever it ends; rows that have to be picked are there, come what may."""
    ended_well = 0
    for seed in range(CASES):
        case = drawn(seed, plenty=False)
        windows, so_far = case.picked(), list[int]()
        for number, window in enumerate(windows):
            before, so_far = so_far, so_far + window
            must = {row for row in case.include if row // case.size == number}
            assert must <= set(window), seed
            assert len(window) <= max(case.keep, len(must)), seed
            free = [
                source for source in range(3) if any(case.shares.of_row[row] == source for row in set(window) - must)
            ]
            for source in free:
                assert case.over(so_far)[source] < 1, (seed, before, window)
        ended_well += case.holds(so_far)
    assert ended_well > CASES / 6


def test_what_a_window_lacks_is_made_up_in_the_next() -> None:
    """Half of the picks are to be of b, and the first window has none."""
    shares = Shares(("a", "b", "c"), np.array([0] * 6 + [0, 0, 0, 1, 1, 1]), np.array([0, 0.5, 0]), np.ones(3))
    first, second = Windows(shares, size=6, keep=3).picked()
    assert (len(first), sorted(second)) == (3, [9, 10, 11])


def test_rounding_keeps_no_window_from_its_picks() -> None:
    """Of 3 picks neither half is a whole row: two of one are picked, and the next window makes it even."""
    shares = Shares(("a", "b", "c"), np.array([0, 0, 0, 1, 1, 1] * 4), np.zeros(3), np.array([0.5, 0.5, 0.0]))
    windows = Windows(shares, size=6, keep=3).picked()
    held = [np.bincount(shares.of_row[window], minlength=2).tolist() for window in windows]
    assert [sorted(one) for one in held] == [[1, 2]] * 4
    assert np.sum(held[:2], axis=0).tolist() == np.sum(held[2:], axis=0).tolist() == [3, 3]


def test_rows_that_must_be_picked_later_have_their_places_kept() -> None:
    """Of four picks one may be of a, and the second window's is named: the first takes none."""
    shares = Shares(("a", "b", "c"), np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.zeros(3), np.array([0.25, 1.0, 1.0]))
    first, second = Windows(shares, size=4, keep=2, include=(5,)).picked()
    assert sorted(first) == [2, 3]
    assert second[0] == 5
    assert second[1] in (6, 7)
