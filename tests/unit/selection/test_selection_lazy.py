"""The lazy greedy picks what a naive greedy picks, and that is what the definitions say."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_greedy import assert_greedy, naive_picks

from workers.selection import Selection, SelectionConfig, lazy, select
from workers.selection.problem import Problem

POOLS = 40
KINDS = ["gaussian", "grid", "duplicates", "opposites", "norms", "one-hot", "decaying", "unit"]


@dataclass(frozen=True)
class Case:
    sketches: np.ndarray
    budget: int
    penalty: float


def of_unit_length(rows: np.ndarray) -> np.ndarray:
    """The rows' directions as a request with `normalize: unit` has them: in float32, so of length 1 to rounding."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@st.composite
def cases(draw: st.DrawFn, dtype: type = np.float64) -> Case:
    """Random rows with what makes a greedy stumble: duplicates, opposites, ties, zeros, wild norms."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, p = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    kind = draw(st.sampled_from(KINDS))
    rows = rng.standard_normal((n, p))
    if kind == "grid":
        rows = rng.integers(-1, 2, (n, p)).astype(float)
    elif kind == "one-hot":
        rows = np.eye(p)[rng.integers(0, p, n)]
    elif kind == "duplicates":
        rows = rows[rng.integers(0, max(1, n // 3), n)]
    elif kind == "opposites":
        rows = rows[rng.integers(0, max(1, n // 2), n)] * rng.choice([-1.0, 1.0], (n, 1))
    elif kind == "norms":
        rows *= 10 ** rng.uniform(-3, 3, (n, 1))
    elif kind == "decaying":
        rows *= np.arange(1, p + 1) ** -1.0
    elif kind == "unit":
        rows = of_unit_length(rows).astype(np.float64)
    live = int(np.count_nonzero(np.abs(rows).sum(axis=1)))
    if live == 0:
        rows[0] = 1.0
        live = 1
    return Case(rows.astype(dtype), draw(st.integers(1, live)), draw(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small take ten times as long where threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


BLOCKS = st.sampled_from([3, lazy.BLOCK])


@pytest.fixture
def small_fronts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fronts of two rows that hardly grow, so that small cases take every path that large ones do."""
    monkeypatch.setattr(lazy, "_FRONT_ROWS", 2)
    monkeypatch.setattr(lazy, "_FRONT_BYTES", 1)
    monkeypatch.setattr(lazy, "_LASTING", (0, 3))


def pick(case: Case, block: int = lazy.BLOCK) -> Selection:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy, "BLOCK", block)
        return select(case.sketches, SelectionConfig(budget=case.budget, conflict_penalty=case.penalty))


@pytest.mark.usefixtures("small_fronts")
@settings(max_examples=1000, deadline=None)
@given(case=cases(), block=BLOCKS)
def test_lazy_equals_naive_in_float64(case: Case, block: int) -> None:
    selection = pick(case, block)
    np.testing.assert_array_equal(
        selection.indices, naive_picks(case.sketches, case.budget, selection.alpha, case.penalty)
    )


@pytest.mark.usefixtures("small_fronts")
@settings(max_examples=400, deadline=None)
@given(case=cases(np.float32), block=BLOCKS)
def test_float32_gives_what_the_same_values_give_in_float64(case: Case, block: int) -> None:
    narrow = pick(case, block)
    wide = pick(Case(case.sketches.astype(np.float64), case.budget, case.penalty), block)
    np.testing.assert_array_equal(narrow.indices, wide.indices)
    np.testing.assert_allclose(narrow.marginal_gains, wide.marginal_gains, rtol=1e-7, atol=1e-12)


@settings(max_examples=400, deadline=None)
@given(case=cases())
def test_it_follows_the_definitions(case: Case) -> None:
    selection = pick(case)
    assert_greedy(case.sketches, selection.indices, selection.alpha, case.penalty)


@pytest.mark.parametrize("penalty", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_at_a_size_with_many_fronts(penalty: float, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_FRONT_BYTES", 1)
    rng = np.random.default_rng(3)
    sketches = (rng.standard_normal((1500, 48)) * np.arange(1, 49) ** -0.4 - 0.1).astype(dtype)
    sketches[1000:1300] = sketches[:300]
    selection = pick(Case(sketches, 250, penalty))
    np.testing.assert_array_equal(selection.indices, naive_picks(sketches, 250, selection.alpha, penalty))


def test_rounding_of_sketches_does_not_decide_between_rows_of_one_length() -> None:
    """A batch of another shape moves a sketch by 3.5e-7 of its length, and all rows of one length tie at first."""
    same = 0
    for seed in range(POOLS):
        rng = np.random.default_rng(seed)
        rows = rng.standard_normal((300, 96)) * np.arange(1, 97) ** -0.4
        noise = rng.standard_normal(rows.shape)
        noise *= 3e-7 * np.linalg.norm(rows, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
        picks, again = (pick(Case(of_unit_length(one), 30, 0.1)).indices for one in (rows, rows + noise))
        assert picks[0] == 0
        same += np.array_equal(picks, again)
    assert same >= POOLS - 1  # a row may be as far from the best as rows that tie at most, and rounding decides then


def test_rows_nearer_than_sketches_are_right_tie_and_others_do_not() -> None:
    lengths = np.array([1.0, 1.0 + 2e-7, 1.0 + 9e-6])
    assert pick(Case(np.diag(lengths), 1, 0.1)).indices.tolist() == [2]
    assert pick(Case(np.diag(lengths[:2]), 1, 0.1)).indices.tolist() == [0]


def test_rows_of_one_length_need_no_front_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """They all tie at the first pick, and a front is copied in float64."""
    fronts: list[int] = []

    class Counted(lazy.Front):
        def __init__(self, problem: Problem, rows: torch.Tensor, *others: Any) -> None:
            fronts.append(len(rows))
            super().__init__(problem, rows, *others)

    monkeypatch.setattr(lazy, "Front", Counted)
    rows = of_unit_length(np.random.default_rng(0).standard_normal((20_000, 64)))
    select(rows, SelectionConfig(budget=20))
    assert max(fronts) <= 4096
