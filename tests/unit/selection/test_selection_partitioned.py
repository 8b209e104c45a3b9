"""RandGreeDi: parts picked anywhere and merged, what that loses, and what is still proven."""

import hashlib
from itertools import combinations

import numpy as np
import pytest
from in_parts import select_in_parts

from workers.selection import (
    ConfigError,
    InvalidRowsError,
    PartPicks,
    SelectionConfig,
    merge,
    partition,
    select,
    select_part,
    settle,
)


def gaussian(n: int = 600, p: int = 12, seed: int = 0, shift: float = -0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n, p)) + shift).astype(np.float32)


def log_det(rows: np.ndarray, alpha: float) -> float:
    wide = rows.astype(np.float64)
    return float(np.linalg.slogdet(np.eye(rows.shape[1]) + alpha * wide.T @ wide)[1])


def test_parts_are_a_seeded_partition_with_independent_draws() -> None:
    parts = partition(10_000, 7, seed=3)
    assert sorted(np.concatenate(parts)) == list(range(10_000))
    assert all((np.diff(part) > 0).all() for part in parts)
    for one, other in zip(parts, partition(10_000, 7, seed=3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(len(one) != len(other) for one, other in zip(parts, partition(10_000, 7, seed=4), strict=True))
    sizes = np.array([len(part) for part in parts])
    assert abs(sizes - 10_000 / 7).max() < 5 * np.sqrt(10_000 / 7)
    assert sizes.min() < sizes.max()


def test_parts_are_the_same_in_every_version_of_numpy() -> None:
    """Worked out from the words of Philox alone, whose stream numpy guarantees."""
    key = int.from_bytes(hashlib.sha256(b'[3, "part", ""]').digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(50).tolist()
    for part, rows in enumerate(partition(50, 7, seed=3)):
        assert rows.tolist() == [row for row, word in enumerate(words) if word % 7 == part]


@pytest.mark.parametrize("penalty", [0.0, 0.1, 1.0])
def test_one_part_is_the_exact_greedy(penalty: float) -> None:
    config = SelectionConfig(budget=60, conflict_penalty=penalty)
    one, whole = select_in_parts(gaussian(), config, 1), select(gaussian(), config)
    np.testing.assert_array_equal(one.indices, whole.indices)
    np.testing.assert_allclose(one.marginal_gains, whole.marginal_gains, rtol=1e-9)
    np.testing.assert_allclose(one.conflicts, whole.conflicts, atol=1e-9)
    assert one.certificate == pytest.approx(whole.certificate, abs=1e-4)  # both from upper ends of bulk gains
    assert one.stop_reason == whole.stop_reason == "budget"


def test_the_pieces_give_what_the_whole_gives_in_any_order() -> None:
    sketches, config = gaussian(), SelectionConfig(budget=50, seed=2)
    settled = settle(sketches, config)
    picks = [select_part(sketches, rows, settled) for rows in partition(len(sketches), 4, config.seed)]
    one, other = select_in_parts(sketches, config, 4), merge(sketches, picks[::-1], settled)
    np.testing.assert_array_equal(one.indices, other.indices)
    assert one.alpha == other.alpha == select(sketches, config).alpha
    for rows, part in zip(partition(len(sketches), 4, config.seed), picks, strict=True):
        alone = select(sketches[rows], SelectionConfig(budget=50, alpha=settled.alpha))
        np.testing.assert_array_equal(part.indices, rows[alone.indices])


@pytest.mark.parametrize("parts", [2, 5])
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_it_comes_close_to_the_exact_greedy_and_is_certified_against_all_rows(parts: int, penalty: float) -> None:
    sketches = gaussian(2000, 24)
    config = SelectionConfig(budget=100, conflict_penalty=penalty)
    spread, exact = select_in_parts(sketches, config, parts), select(sketches, config)
    assert len(set(spread.indices.tolist())) == 100
    assert spread.log_det[-1] >= 0.98 * exact.log_det[-1]
    assert spread.log_det[-1] == pytest.approx(log_det(sketches[spread.indices], spread.alpha), rel=1e-6)
    left = np.setdiff1d(np.arange(2000), spread.indices)
    inside = sketches[spread.indices].astype(np.float64)
    information = np.eye(24) + spread.alpha * inside.T @ inside
    outside = sketches[left].astype(np.float64)
    gains = np.log1p(spread.alpha * (outside * np.linalg.solve(information, outside.T).T).sum(axis=1))
    bound = spread.log_det[-1] + np.sort(gains)[-100:].sum()
    assert bound - 1e-9 <= spread.guarantees.optimum_upper_bound <= bound + 100 * 1e-4  # 1e-4 nats for each gain
    assert exact.log_det[-1] <= bound
    assert spread.guarantees.additive_bound is None


@pytest.mark.parametrize("penalty", [0.0, 0.2])
@pytest.mark.parametrize("parts", [2, 4])
def test_its_guarantee_holds_on_average_over_partitions(parts: int, penalty: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(4):
        sketches = rng.standard_normal((12, 3)) * 10 ** rng.uniform(-0.5, 0.5, (12, 1))
        sketches[6:9] = sketches[:3]
        configs = [SelectionConfig(budget=3, conflict_penalty=penalty, alpha=1.0, seed=seed) for seed in range(40)]
        selections = [select_in_parts(sketches, config, parts) for config in configs]
        reached = np.array([selection.log_det[-1] for selection in selections])
        best = max(log_det(sketches[list(subset)], 1.0) for subset in combinations(range(12), 3))
        assert reached.max() <= best + 1e-9
        assert reached.mean() >= (1 - (2 / 3) ** 3) * (best / 2 - 3 * penalty)
        assert all(selection.guarantees.optimum_upper_bound >= best for selection in selections)


def test_rows_that_a_part_passed_over_do_not_change_its_picks() -> None:
    """Consistency, on which the proof rests: what is rejected one by one is rejected together."""
    sketches, config = gaussian(160), SelectionConfig(budget=30, alpha=0.1, conflict_penalty=0.5)
    part, others = np.arange(100), np.arange(100, 160)
    picks = select_part(sketches, part, config).indices
    rejected = [
        row for row in others if row not in select_part(sketches, np.append(part, row), config).indices.tolist()
    ]
    assert 0 < len(rejected) < 60
    together = select_part(sketches, np.concatenate([part, rejected]), config).indices
    np.testing.assert_array_equal(together, picks)


def test_the_best_part_is_returned_where_the_merge_is_worse() -> None:
    sketches = gaussian(60)
    config = settle(sketches, SelectionConfig(budget=10))
    good = select(sketches, config)
    best = PartPicks(good.indices, good.marginal_gains)
    claimed = PartPicks(np.arange(10), np.full(10, 10.0))  # worse in truth: F is that of the rows, whoever says what
    selection = merge(sketches, [best, claimed], config)
    np.testing.assert_array_equal(selection.indices, np.arange(10))
    assert selection.log_det[-1] == pytest.approx(log_det(sketches[:10], selection.alpha), rel=1e-6)
    short = merge(sketches, [best, PartPicks(np.arange(4), np.full(4, 10.0))], config)
    np.testing.assert_array_equal(short.indices[:4], np.arange(4))
    assert len(set(short.indices.tolist())) == 10
    assert short.stop_reason == "budget"


def test_an_early_stop_is_the_merges_and_no_parts() -> None:
    sketches = gaussian(400)
    config = SelectionConfig(budget=200, early_stop_ratio=0.4)
    settled = settle(sketches, config)
    halves = partition(400, 2, 0)
    parts = [select_part(sketches, rows, settled) for rows in halves]
    assert [len(part.indices) for part in parts] == [min(200, len(rows)) for rows in halves]
    stopped, exact = merge(sketches, parts, settled), select(sketches, config)
    assert stopped.stop_reason == exact.stop_reason == "early_stop"
    assert (stopped.marginal_gains > 0.4 * stopped.marginal_gains[0]).all()
    assert len(stopped.indices) == pytest.approx(len(exact.indices), abs=5)


def test_parts_with_few_rows_zero_rows_and_rows_that_are_not_finite() -> None:
    sketches = gaussian(30)
    sketches[::3] = 0.0
    sketches[[4, 7]] = np.nan
    finite = np.delete(sketches, [4, 7], axis=0)
    selection = select_in_parts(finite, SelectionConfig(budget=25), 12)
    assert selection.stop_reason == "exhausted"
    assert set(selection.indices) == set(np.flatnonzero(finite.any(axis=1)).tolist())
    named = SelectionConfig(budget=5, alpha=1.0)
    with pytest.raises(InvalidRowsError, match=r"4 \(nan\), 7 \(nan\)"):
        select_part(sketches, np.array([2, 4, 5, 7]), named)
    nothing = select_in_parts(np.zeros((9, 3)), SelectionConfig(budget=2), 3)
    assert nothing.indices.size == 0
    assert nothing.certificate == 1.0


@pytest.mark.parametrize(
    "setting",
    [{"method": "random"}, {"method": "dpp"}, {"fisher": "reference"}],
)
def test_what_has_no_exact_global_greedy_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="parts need"):
        select_in_parts(gaussian(), SelectionConfig(**({"budget": 5} | setting)), 2)


def test_parts_have_to_share_one_alpha() -> None:
    with pytest.raises(ConfigError, match="settle"):
        select_part(gaussian(), np.arange(50), SelectionConfig(budget=5))
    with pytest.raises(ConfigError, match="settle"):
        merge(gaussian(), [], SelectionConfig(budget=5))
    with pytest.raises(ConfigError, match="parts is 0"):
        partition(5, 0, 0)
