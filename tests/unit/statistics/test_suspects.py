"""How much rows look wrong, by hand and in general."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.statistics.row_figures import RowFigures
from workers.statistics.suspects import Needs, TokenBudget, broken_off, default_filter, suspects, suspicion

NAN = math.nan


def figures(loss: list[float], ifd: list[float], end: list[float] | None = None) -> RowFigures:
    ends = np.full(len(loss), NAN) if end is None else np.array(end)
    return RowFigures(np.array(loss), np.ones(len(loss)), np.zeros(len(loss)), np.array(ifd), ends)


def test_the_larger_of_two_places_by_hand() -> None:
    found = suspicion(figures([1.0, 2.0, 3.0, 4.0], [0.9, 0.2, 0.3, NAN]))
    assert found.tolist() == pytest.approx([1.0, 0.5, 0.75, 1.0]), "of the three known IFDs 0.9 is the largest"
    assert suspicion(figures([1.0, 1.0], [NAN, NAN])).tolist() == [0.75, 0.75], "ties share their places"


def test_a_prompt_that_does_not_help_makes_a_suspect() -> None:
    assert suspects(figures([1, 1, 1], [0.4, 1.0, NAN])).tolist() == [False, True, False]
    assert not suspects(figures([1, 1, 1], [1.01, 1.0, 0.99])).any(), "a model that makes nothing of prompts"
    assert not suspects(figures([1, 1], [NAN, NAN])).any()


def test_a_response_that_breaks_off_looks_more_wrong() -> None:
    """The lower quartile of 1, 2, 3, 4, 7.1 and 7 is 2: what is above 7 breaks off, one row of six."""
    rows = figures([1.0] * 7, [0.5] * 7, [3.0, 7.1, 1.0, 2.0, 4.0, 7.0, NAN])
    assert broken_off(rows).tolist() == [False, True, False, False, False, False, False]
    others = [4 / 7] * 5
    assert suspicion(rows).tolist() == pytest.approx([4 / 7, 1 - 3 / 28, *others]), "they would share a place"
    assert suspects(rows).tolist() == broken_off(rows).tolist()
    assert not broken_off(figures([1] * 4, [0.5] * 4, [20.0, 21.0, 22.0, 23.0])).any(), "a model that ends nothing"
    assert not broken_off(figures([1], [0.5])).any(), "no end is known"


def test_ends_of_less_than_a_tenth_say_nothing() -> None:
    one_of = [1.0] * 9 + [20.0]
    assert broken_off(figures([1.0] * 10, [0.5] * 10, one_of)).sum() == 1
    assert not broken_off(figures([1.0] * 11, [0.5] * 11, [1.0, *one_of])).any()


def test_two_fifths_that_break_off_are_told() -> None:
    ends = [1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 20.0, 20.0, 20.0, 20.0]
    assert broken_off(figures([1.0] * 10, [0.5] * 10, ends)).tolist() == [end == 20 for end in ends]


@given(
    rows=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 3)), min_size=1, max_size=60),
    at_least=st.integers(1, 60),
)
def test_the_default_drops_at_most_half_and_leaves_the_budget(rows: list[tuple[float, float]], at_least: int) -> None:
    at_least = min(at_least, len(rows))
    suspicious = suspicion(figures([loss for loss, _ in rows], [ifd for _, ifd in rows]))
    assert ((suspicious > 0) & (suspicious <= 1)).all()
    gone = default_filter(suspicious, Needs.of_any(len(rows), at_least)).get("suspicion", np.zeros(0, dtype=np.int64))
    alike = suspicious.min() == suspicious.max()
    assert len(gone) == (0 if alike else max(0, min(len(rows) // 2, len(rows) - at_least)))
    stays = np.setdiff1d(np.arange(len(rows)), gone)
    if len(gone):
        assert suspicious[gone].min() >= suspicious[stays].max()


def test_of_rows_that_look_equally_wrong_at_the_bound_the_first_is_dropped() -> None:
    gone = default_filter(np.array([0.5, 0.7, 0.7, 0.9]), Needs.of_any(4, 1))
    assert gone["suspicion"].tolist() == [1, 3]


@given(data=st.data())
def test_the_default_leaves_what_the_constraints_need_and_gives_back_no_more(data: st.DataObject) -> None:
    """Against the plain words: of the worst half, least wrong first, each row that a source or the budget lacks."""
    count, sources = data.draw(st.integers(2, 30)), data.draw(st.integers(1, 4))
    suspicious = np.array(data.draw(st.permutations(range(count))), dtype=np.float64) / count
    may = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    source = np.array(data.draw(st.lists(st.integers(0, sources - 1), min_size=count, max_size=count)))
    least = np.array(data.draw(st.lists(st.integers(0, 5), min_size=sources, max_size=sources)))
    most = least + np.array(data.draw(st.lists(st.integers(0, 9), min_size=sources, max_size=sources)))
    needs = Needs(data.draw(st.integers(1, count)), may, source, least, most)
    gone = set(np.argsort(-suspicious)[: count // 2].tolist())

    def held(of: int) -> int:
        return sum(may[row] and source[row] == of for row in range(count) if row not in gone)

    for lacking in (
        lambda row: held(source[row]) < least[source[row]],
        lambda row: (
            held(source[row]) < most[source[row]] and sum(min(held(of), most[of]) for of in range(sources)) < needs.rows
        ),
    ):
        for row in np.argsort(suspicious).tolist():
            if row in gone and may[row] and lacking(row):
                gone.remove(row)
    assert default_filter(suspicious, needs).get("suspicion", np.zeros(0)).tolist() == sorted(gone)


@given(data=st.data())
def test_the_default_leaves_rows_that_the_token_budget_buys_if_there_are_any(data: st.DataObject) -> None:
    """Against every set of rows: if one is allowed, so is one without the rows that are dropped."""
    count, sources = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 2))

    def of_each(values: st.SearchStrategy[int], number: int = count) -> np.ndarray:
        return np.array(data.draw(st.lists(values, min_size=number, max_size=number)))

    suspicious = np.array(data.draw(st.permutations(range(count))), dtype=np.float64) / count
    may, must = of_each(st.integers(0, 3)) > 0, of_each(st.integers(0, 7)) == 0
    source, least, tokens = (
        of_each(st.integers(0, sources - 1)),
        of_each(st.integers(0, 2), sources),
        of_each(st.integers(1, 9)),
    )
    budget = TokenBudget(tokens, data.draw(st.integers(1, 40)), must)
    needs = Needs(data.draw(st.integers(1, count)), may | must, source, least, np.full(sources, count), budget)
    gone = default_filter(suspicious, needs).get("suspicion", np.zeros(0, dtype=np.int64))
    stays = np.setdiff1d(np.arange(count), gone)

    def possible(rows: np.ndarray) -> bool:
        rows = np.union1d(rows[needs.may[rows]], np.flatnonzero(must))
        return any(
            tokens[list(some)].sum() <= budget.most
            and must[list(some)].sum() == must.sum()
            and (np.bincount(source[list(some)], minlength=sources) >= least).all()
            for size in range(1, len(rows) + 1)
            for some in combinations(rows.tolist(), size)
        )

    assert possible(stays) == possible(np.arange(count))
