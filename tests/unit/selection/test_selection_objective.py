"""The gains of the picks are the log-det of the picks, whatever the rows look like."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.selection import Selection, SelectionConfig, select


def exact_log_det(sketches: np.ndarray, indices: np.ndarray, alpha: float) -> float:
    """log det(I + alpha Z^T Z) in float64 by slogdet on the smaller side."""
    rows = np.sqrt(alpha) * sketches[indices].astype(np.float64)
    gram = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
    return float(np.linalg.slogdet(np.eye(len(gram)) + gram)[1])


def assert_exact(sketches: np.ndarray, selection: Selection) -> None:
    truth = exact_log_det(sketches, selection.indices, selection.alpha)
    assert selection.marginal_gains.sum() == pytest.approx(truth, rel=1e-6, abs=1e-12)
    np.testing.assert_allclose(selection.log_det, np.cumsum(selection.marginal_gains))
    assert (selection.epsilons <= 0).all()
    assert ((selection.conflicts >= 0) & (selection.conflicts <= 1)).all()
    assert selection.guarantees.epsilon_bound_violations == 0
    assert 0 <= selection.certificate <= 1


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    p=st.integers(1, 40),
    share=st.floats(0.01, 1.0),
    method=st.sampled_from(["spice", "fisher", "dpp", "grad_norm", "random"]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_gains_sum_to_slogdet(*, seed: int, n: int, p: int, share: float, method: str, dtype: type) -> None:
    sketches = np.random.default_rng(seed).standard_normal((n, p)).astype(dtype)
    selection = select(sketches, SelectionConfig(budget=max(1, int(share * n)), method=method, seed=seed))
    assert_exact(sketches, selection)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norms_from_a_millionth_to_a_million_with_duplicates_collinear_and_zero_rows(dtype: type) -> None:
    rng = np.random.default_rng(7)
    sketches = rng.standard_normal((150, 24)) * 10 ** rng.uniform(-6, 6, (150, 1))
    sketches[100:110] = sketches[:10]
    sketches[110:120] = -3.0 * sketches[10:20]
    sketches[120:125] = 0.0
    sketches = sketches.astype(dtype)
    selection = select(sketches, SelectionConfig(budget=150))
    assert selection.stop_reason == "exhausted"
    assert set(selection.indices) == set(range(150)) - set(range(120, 125))
    assert_exact(sketches, selection)


@pytest.mark.parametrize("rows", [1, 2, 128, 129, 257])
def test_a_budget_that_is_met_is_why_it_ended_also_where_no_row_is_left(rows: int) -> None:
    """129 and 257: the first pick, and then as many as are taken in together."""
    sketches = np.random.default_rng(rows).standard_normal((rows, 16)).astype(np.float32)
    beside_zeros = np.vstack([sketches, np.zeros((3, 16), dtype=np.float32)])
    assert select(sketches, SelectionConfig(budget=rows)).stop_reason == "budget"
    assert select(beside_zeros, SelectionConfig(budget=rows)).stop_reason == "budget"
    assert select(beside_zeros, SelectionConfig(budget=rows + 1)).stop_reason == "exhausted"


def test_a_duplicate_of_a_pick_gains_log_of_one_plus_a_over_one_plus_a() -> None:
    row = np.array([[3.0, 4.0]])
    selection = select(np.repeat(row, 2, axis=0), SelectionConfig(budget=2, alpha=0.5))
    a = 0.5 * 25.0
    np.testing.assert_allclose(selection.marginal_gains, [np.log1p(a), np.log1p(a / (1 + a))], rtol=1e-14)


def test_negated_gradients_have_the_same_gains() -> None:
    sketches = np.random.default_rng(0).standard_normal((40, 8))
    signs = np.where(np.arange(40) % 3 == 0, -1.0, 1.0)[:, None]
    config = SelectionConfig(budget=20, method="fisher")
    one, other = select(sketches, config), select(signs * sketches, config)
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_allclose(one.marginal_gains, other.marginal_gains, rtol=1e-12)


@pytest.mark.parametrize("method", ["spice", "fisher", "random"])
def test_conflicts_are_those_of_the_definition(method: str) -> None:
    sketches = np.random.default_rng(0).standard_normal((300, 10)) - 0.3
    sketches[100] = -sketches[99]
    selection = select(sketches, SelectionConfig(budget=150, method=method))
    for at, row in enumerate(selection.indices):
        total = sketches[selection.indices[:at]].sum(axis=0)
        lengths = np.linalg.norm(sketches[row]) * np.linalg.norm(total)
        expected = max(0.0, -(sketches[row] @ total) / lengths) if at else 0.0
        assert selection.conflicts[at] == pytest.approx(expected, abs=1e-12)
