"""Methods, windows, the stochastic greedy, comparisons and sweeps."""

import numpy as np
import pytest
import torch

from benchmarks.published_loop import published_loop
from workers.selection import BudgetError, ConfigError, SelectionConfig, compare, select, sweep
from workers.selection.windows import cut


def gaussian(n: int = 200, p: int = 16, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n, p)) + shift).astype(np.float32)


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("penalty", [0.0, 0.1, 1.0])
def test_the_reference_score_reproduces_the_published_index_lists(scale: float, penalty: float) -> None:
    gradients = scale * gaussian(80, 64, seed=int(10 * penalty))
    config = SelectionConfig(budget=40, alpha=1.0, conflict_penalty=penalty, fisher="reference")
    expected = published_loop(torch.from_numpy(gradients), 40, alpha=1.0, penalty=penalty)
    assert select(gradients, config).indices.tolist() == expected


def test_fisher_is_spice_without_the_penalty() -> None:
    sketches = gaussian(shift=-0.2)
    fisher = select(sketches, SelectionConfig(budget=50, method="fisher", conflict_penalty=0.7))
    spice = select(sketches, SelectionConfig(budget=50, conflict_penalty=0.0))
    np.testing.assert_array_equal(fisher.indices, spice.indices)


def test_dpp_is_the_greedy_map_on_cosines_whatever_the_norms() -> None:
    sketches = gaussian(40, 6).astype(np.float64)
    stretched = sketches * np.random.default_rng(1).uniform(0.01, 100, (40, 1))
    unit = sketches / np.linalg.norm(sketches, axis=1, keepdims=True)
    kernel = unit @ unit.T + 1e-3 * np.eye(40)
    picks: list[int] = []
    for _ in range(20):
        gains = [
            -np.inf if i in picks else np.linalg.slogdet(kernel[np.ix_([*picks, i], [*picks, i])])[1] for i in range(40)
        ]
        picks.append(int(np.argmax(np.array(gains) >= max(gains) - 1e-9)))
    for rows in (sketches, stretched):
        assert select(rows, SelectionConfig(budget=20, method="dpp")).indices.tolist() == picks


def test_grad_norm_is_the_order_of_norms_and_random_is_a_seeded_sample() -> None:
    sketches = gaussian()
    by_norm = select(sketches, SelectionConfig(budget=30, method="grad_norm")).indices
    np.testing.assert_array_equal(by_norm, np.argsort(-np.linalg.norm(sketches, axis=1), kind="stable")[:30])
    draws = [select(sketches, SelectionConfig(budget=30, method="random", seed=s)).indices for s in range(400)]
    assert all(len(set(draw.tolist())) == 30 for draw in draws)
    counts = np.bincount(np.concatenate(draws), minlength=200)
    assert abs(counts - 60).max() < 5 * np.sqrt(60)


@pytest.mark.parametrize(
    ("n", "size", "picks", "budget"), [(1000, 120, 12, 96), (1000, 120, None, 100), (50, 7, None, 13)]
)
def test_windows_partition_the_pool_and_fill_the_budget(n: int, size: int, picks: int | None, budget: int) -> None:
    windows = cut(np.arange(n), size, picks, budget, seed=3)
    rows = np.concatenate([window.rows for window in windows])
    assert len(set(rows.tolist())) == len(rows)
    assert sum(window.picks for window in windows) == budget
    if picks is None:
        assert sorted(rows) == list(range(n))
        assert max(abs(window.picks - budget * len(window.rows) / n) for window in windows) <= 1


@pytest.mark.parametrize("optimizer", ["lazy", "plain"])
def test_a_window_is_selected_as_if_it_were_alone(optimizer: str) -> None:
    sketches = gaussian(240, shift=-0.1)
    config = SelectionConfig(budget=24, pool_size=120, pool_picks=12, seed=5, alpha=0.1, optimizer=optimizer)
    selection = select(sketches, config)
    at = 0
    for window in cut(np.arange(240), 120, 12, 24, seed=5):
        alone = select(sketches[window.rows], SelectionConfig(budget=12, alpha=0.1))
        np.testing.assert_array_equal(selection.indices[at : at + 12], window.rows[alone.indices])
        at += 12


def test_windows_that_cannot_fill_the_budget_are_refused() -> None:
    with pytest.raises(BudgetError, match="budget is 50 rows but at most 20"):
        select(gaussian(), SelectionConfig(budget=50, pool_size=100, pool_picks=10))


def test_windows_stop_early_one_by_one() -> None:
    sketches = gaussian(240, 8)
    config = SelectionConfig(budget=120, pool_size=120, pool_picks=60, early_stop_ratio=0.5)
    selection = select(sketches, config)
    assert selection.stop_reason == "early_stop"
    assert 2 <= len(selection.indices) < 120


def test_the_stochastic_greedy_keeps_its_promise_on_average() -> None:
    sketches = gaussian(400, 12)
    best = select(sketches, SelectionConfig(budget=40, method="fisher"))
    reached = [
        select(
            sketches,
            SelectionConfig(budget=40, method="fisher", optimizer="stochastic", stochastic_epsilon=0.1, seed=s),
        ).log_det[-1]
        for s in range(10)
    ]
    assert np.mean(reached) >= (1 - np.exp(-1) - 0.1) * best.guarantees.optimum_upper_bound * 0.99
    assert len(set(np.round(reached, 9))) > 1
    assert np.mean(reached) >= 0.95 * best.log_det[-1]


def test_compare_shows_what_the_penalty_did() -> None:
    rng = np.random.default_rng(0)
    # A large group along one axis, and a small one of longer rows against it.
    sketches = rng.standard_normal((300, 12)) + np.r_[np.full(240, 2.0), np.full(60, -4.0)][:, None] * np.eye(12)[0]
    config = SelectionConfig(budget=40, conflict_penalty=2.0)
    report = compare(
        sketches,
        {"spice": config, "fisher": config.baseline("fisher"), "random": config.baseline("random")},
        repeats=4,
        lengths=np.arange(300),
    )
    spice, fisher, random = report.methods
    assert (spice.runs, fisher.runs, random.runs) == (1, 1, 4)
    assert spice.mean_conflict.mean < fisher.mean_conflict.mean
    assert spice.final_log_det.mean <= fisher.final_log_det.mean
    assert random.final_log_det.mean < spice.final_log_det.mean
    assert random.final_log_det.std > 0
    assert random.log_det.shape == random.log_det_std.shape == (40,)
    assert spice.mean_length is not None
    assert spice.mean_length.mean == pytest.approx(spice.selections[0].indices.mean())
    np.testing.assert_allclose(report.jaccard, report.jaccard.T)
    shared = np.intersect1d(spice.selections[0].indices, fisher.selections[0].indices).size
    assert report.jaccard[0, 1] == pytest.approx(shared / (80 - shared))
    assert report.jaccard[0, 0] == 1.0
    assert report.jaccard[2, 2] < 0.5
    assert {s.alpha for method in report.methods for s in method.selections} == {report.alpha}


def test_diversity_is_best_for_orthogonal_rows() -> None:
    rows = np.vstack([np.eye(8), np.tile(np.eye(8)[0], (8, 1))])
    apart = compare(rows, {"dpp": SelectionConfig(budget=8, method="dpp")}).methods[0]
    assert apart.log_det_distance.mean == pytest.approx(0.0, abs=1e-9)
    assert apart.cluster_coverage.mean == 1.0
    same = compare(rows[8:], {"dpp": SelectionConfig(budget=4, method="dpp")}).methods[0]
    assert same.log_det_distance.mean > 1.0


def test_zero_rows_can_be_compared() -> None:
    """They have no clusters, and the methods that climb pick nothing of them."""
    config = SelectionConfig(budget=2)
    spice, random = compare(np.zeros((5, 3)), {"spice": config, "random": config.baseline("random")}).methods
    assert (spice.picks.mean, random.picks.mean) == (0, 2)
    assert spice.final_log_det.mean == random.final_log_det.mean == 0.0
    assert spice.cluster_coverage.mean == random.cluster_coverage.mean == 0.0
    assert spice.certificate.mean == 1.0


def test_a_sweep_gives_what_each_setting_gives_alone() -> None:
    sketches = gaussian(300, 10, shift=-0.3)
    config = SelectionConfig(budget=80)
    points = sweep(sketches, config, penalties=(0.0, 0.5), early_stop_ratios=(None, 0.3, 0.6))
    assert len(points) == 6
    for point in points:
        alone = select(
            sketches,
            SelectionConfig(
                budget=80, conflict_penalty=point.conflict_penalty, early_stop_ratio=point.early_stop_ratio
            ),
        )
        np.testing.assert_array_equal(point.indices, alone.indices)
        assert point.k == len(alone.indices)
        assert point.log_det == pytest.approx(alone.log_det[-1])
        assert point.mean_conflict == pytest.approx(alone.conflicts.mean())
    with pytest.raises(ConfigError, match="early_stop_ratio is 2"):
        sweep(sketches, config, early_stop_ratios=(2.0,))
    with pytest.raises(ConfigError, match="no windows"):
        sweep(sketches, SelectionConfig(budget=8, pool_size=50))


def test_error_bars_are_those_of_the_runs_over_seeds() -> None:
    sketches = gaussian(120)
    config = SelectionConfig(budget=15, method="random", seed=7)
    report = compare(sketches, {"random": config}, repeats=5).methods[0]
    runs = [select(sketches, SelectionConfig(budget=15, method="random", seed=7 + run)) for run in range(5)]
    curves = np.stack([run.log_det for run in runs])
    np.testing.assert_allclose(report.log_det, curves.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(report.log_det_std, curves.std(axis=0, ddof=1), rtol=1e-9)
    assert report.final_log_det.std == pytest.approx(curves[:, -1].std(ddof=1))
    conflicts = [run.conflicts.mean() for run in runs]
    assert report.mean_conflict.mean == pytest.approx(np.mean(conflicts))
    assert report.mean_conflict.std == pytest.approx(np.std(conflicts, ddof=1))


@pytest.mark.parametrize("method", ["dpp", "grad_norm", "random"])
def test_windows_of_every_other_method_are_selected_as_if_alone(method: str) -> None:
    sketches = gaussian(90)
    selection = select(
        sketches, SelectionConfig(budget=9, method=method, pool_size=30, pool_picks=3, seed=2, alpha=0.1)
    )
    for number, window in enumerate(cut(np.arange(90), 30, 3, 9, seed=2)):
        alone = select(sketches[window.rows], SelectionConfig(budget=3, method=method, seed=2 + number, alpha=0.1))
        np.testing.assert_array_equal(selection.indices[3 * number : 3 * number + 3], window.rows[alone.indices])


@pytest.mark.parametrize("optimizer", ["lazy", "plain"])
@pytest.mark.parametrize("method", ["spice", "fisher"])
def test_an_early_stop_is_a_prefix_whichever_optimizer_finds_it(method: str, optimizer: str) -> None:
    sketches = gaussian(150, shift=-0.2)
    whole = select(sketches, SelectionConfig(budget=150, method=method, optimizer=optimizer))
    for ratio in (0.3, 0.6, 0.9):
        config = SelectionConfig(budget=150, method=method, optimizer=optimizer, early_stop_ratio=ratio)
        stopped = select(sketches, config)
        k = len(stopped.indices)
        assert stopped.stop_reason == "early_stop"
        np.testing.assert_array_equal(stopped.indices, whole.indices[:k])
        assert (whole.marginal_gains[:k] > ratio * whole.marginal_gains[0]).all()
        assert whole.marginal_gains[k] <= ratio * whole.marginal_gains[0]


def test_a_dpp_stops_early_by_the_gain_of_its_own_kernel() -> None:
    sketches = gaussian(60, 6).astype(np.float64)
    unit = sketches / np.linalg.norm(sketches, axis=1, keepdims=True)
    whole = select(sketches, SelectionConfig(budget=40, method="dpp")).indices
    stopped = select(sketches, SelectionConfig(budget=40, method="dpp", early_stop_ratio=0.5))
    gains = np.diff(
        [0.0] + [np.linalg.slogdet(np.eye(6) + 1e3 * unit[whole[:k]].T @ unit[whole[:k]])[1] for k in range(1, 41)]
    )
    k = int(np.flatnonzero(gains <= 0.5 * gains[0])[0])
    np.testing.assert_array_equal(stopped.indices, whole[:k])
    assert stopped.stop_reason == "early_stop"
