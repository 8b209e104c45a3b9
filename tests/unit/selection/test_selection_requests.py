"""What a request may say, what is refused, and what comes back in odd cases."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from workers.selection import (
    BudgetError,
    ConfigError,
    Constraints,
    InvalidRowsError,
    Progress,
    SelectionCancelledError,
    SelectionConfig,
    SketchShapeError,
    select,
)


def gaussian(n: int = 60, p: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, p)).astype(np.float32)


@pytest.mark.parametrize(
    "setting",
    [
        {"budget": 0},
        {"conflict_penalty": -0.1},
        {"conflict_penalty": float("nan")},
        {"alpha": 0.0},
        {"alpha": "median"},
        {"early_stop_ratio": 0.0},
        {"early_stop_ratio": 1.5},
        {"method": "best"},
        {"fisher": "diagonal"},
        {"method": "random", "early_stop_ratio": 0.5},
        {"method": "dpp", "fisher": "reference"},
    ],
)
def test_a_setting_out_of_range_is_named(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting)) if len(setting) == 1 else "."):
        SelectionConfig(**({"budget": 5} | setting))


def test_a_budget_beyond_the_usable_rows_names_both_numbers() -> None:
    with pytest.raises(BudgetError, match="budget is 10 rows but at most 9") as caught:
        select(gaussian(10), SelectionConfig(budget=10), Constraints(exclude=np.array([3])))
    assert (caught.value.budget, caught.value.limit) == (10, 9)


def test_rows_that_are_not_finite_are_named() -> None:
    sketches = gaussian(20)
    sketches[4, 1], sketches[9, 0] = np.nan, np.inf
    with pytest.raises(InvalidRowsError, match=r"2 rows are not finite: 4 \(nan\), 9 \(inf\)") as caught:
        select(sketches, SelectionConfig(budget=5))
    assert caught.value.rows.tolist() == [4, 9]


@pytest.mark.parametrize("bad", [np.zeros((3,)), np.zeros((0, 4)), np.zeros((4, 0)), np.zeros((3, 2), dtype=int)])
def test_what_is_not_a_float_matrix_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(SketchShapeError):
        select(bad, SelectionConfig(budget=1))


def test_one_row() -> None:
    selection = select(np.array([[3.0]]), SelectionConfig(budget=1))
    assert selection.indices.tolist() == [0]
    assert selection.marginal_gains == pytest.approx([np.log(2)])  # alpha = 1 / 9
    assert selection.certificate == 1.0


def test_zero_rows_are_never_picked_for_their_gain() -> None:
    sketches = gaussian(10)
    sketches[5:] = 0
    for method in ("spice", "fisher", "dpp", "grad_norm"):
        selection = select(sketches, SelectionConfig(budget=8, method=method))
        assert selection.stop_reason == "exhausted"
        assert sorted(selection.indices) == [0, 1, 2, 3, 4]
    nothing = select(np.zeros((4, 3)), SelectionConfig(budget=2))
    assert nothing.indices.size == 0
    assert nothing.certificate == 1.0


def test_alpha_auto_is_one_over_the_median_squared_norm() -> None:
    sketches = gaussian(31).astype(np.float64)
    assert select(sketches, SelectionConfig(budget=1)).alpha == pytest.approx(1 / np.median((sketches**2).sum(axis=1)))
    scaled = select(1e3 * sketches, SelectionConfig(budget=20))
    plain = select(sketches, SelectionConfig(budget=20))
    np.testing.assert_array_equal(scaled.indices, plain.indices)


def test_rows_too_small_for_alpha_auto_are_refused_and_the_smallest_of_float32_are_not() -> None:
    sketches = gaussian(31)
    with pytest.raises(ConfigError, match=r"median is .* below 1e-150"):
        select(1e-120 * sketches.astype(np.float64), SelectionConfig(budget=5))
    tiny = select((1e-37 * sketches).astype(np.float32), SelectionConfig(budget=5))
    np.testing.assert_array_equal(tiny.indices, select(sketches, SelectionConfig(budget=5)).indices)


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device is 'cuda'"):
        select(gaussian(), SelectionConfig(budget=5, device="cuda"))


def test_early_stop_leaves_out_the_first_gain_at_omega_times_the_first() -> None:
    sketches = gaussian(80)
    whole = select(sketches, SelectionConfig(budget=80))
    stopped = select(sketches, SelectionConfig(budget=80, early_stop_ratio=0.5))
    k = len(stopped.indices)
    assert stopped.stop_reason == "early_stop"
    np.testing.assert_array_equal(stopped.indices, whole.indices[:k])
    assert whole.marginal_gains[k] <= 0.5 * whole.marginal_gains[0]
    assert (whole.marginal_gains[:k] > 0.5 * whole.marginal_gains[0]).all()
    assert len(select(sketches, SelectionConfig(budget=9, early_stop_ratio=1.0)).indices) >= 1


def test_progress_is_told_and_a_stop_is_heard_within_one_pick() -> None:
    seen: list[Progress] = []
    config = SelectionConfig(budget=20)
    select(gaussian(), config, on_progress=seen.append)
    assert [p.done for p in seen if p.stage == "picking"] == list(range(1, 21))
    assert {p.stage for p in seen} == {"scanning", "picking", "certifying"}
    picks = 0

    def count(progress: Progress) -> None:
        nonlocal picks
        picks += progress.stage == "picking"

    with pytest.raises(SelectionCancelledError, match="picking, at 8 of 20"):
        select(gaussian(), config, on_progress=count, should_stop=lambda: picks >= 7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_gives_what_its_values_give_in_float64(dtype: torch.dtype) -> None:
    sketches = torch.from_numpy(gaussian(300, 12)).to(dtype)
    narrow, wide = (select(rows, SelectionConfig(budget=60)) for rows in (sketches, sketches.double()))
    np.testing.assert_array_equal(narrow.indices, wide.indices)
    np.testing.assert_allclose(narrow.marginal_gains, wide.marginal_gains, rtol=1e-9)


def test_a_read_only_memory_map_is_taken_as_it_is(tmp_path: Path) -> None:
    sketches = gaussian(200, 16).astype(np.float16)
    np.save(tmp_path / "sketches.npy", sketches)
    mapped = np.load(tmp_path / "sketches.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selection = select(mapped, SelectionConfig(budget=30))
    np.testing.assert_array_equal(selection.indices, select(sketches, SelectionConfig(budget=30)).indices)


def test_the_input_is_left_alone_and_the_answer_is_the_same_every_time() -> None:
    sketches = gaussian(300)
    before = sketches.copy()
    for method in ("spice", "random"):
        one, other = (select(sketches, SelectionConfig(budget=40, method=method, seed=4)) for _ in range(2))
        np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(sketches, before)
