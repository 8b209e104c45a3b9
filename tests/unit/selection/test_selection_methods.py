"""Methods, early stops and sweeps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.published_loop import published_loop
from workers.selection import ConfigError, Constraints, Grid, SelectionConfig, select, sweep


def gaussian(n: int = 200, p: int = 16, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n, p)) + shift).astype(np.float32)


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("penalty", [0.0, 0.1, 1.0])
def test_the_reference_score_reproduces_the_published_index_lists(scale: float, penalty: float) -> None:
    gradients = scale * gaussian(80, 64, seed=int(10 * penalty))
    config = SelectionConfig(budget=40, alpha=1.0, conflict_penalty=penalty, fisher="reference")
    expected = published_loop(torch.from_numpy(gradients), 40, alpha=1.0, penalty=penalty)
    assert select(gradients, config).indices.tolist() == expected


@pytest.mark.parametrize("ratio", [None, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(8))
def test_the_reference_top_k_and_its_half_life_are_the_published_ones(seed: int, ratio: float | None) -> None:
    gradients = gaussian(60, 32, seed=seed) * np.random.default_rng(seed).uniform(0.1, 1, (60, 1)).astype(np.float32)
    gains = [float(np.log(1.0 + 0.5 * (row * row).sum())) for row in gradients]
    order = sorted(range(60), key=lambda row: -gains[row])[:30]
    if ratio is not None:
        order = [row for row in order if gains[row] > ratio * gains[order[0]]]
    config = SelectionConfig(budget=30, alpha=0.5, fisher="reference_top_k", early_stop_ratio=ratio)
    assert select(gradients, config).indices.tolist() == order


@pytest.mark.parametrize("seed", range(8))
def test_the_reference_greedy_without_a_penalty_stops_at_its_half_life(seed: int) -> None:
    gradients = 2 * gaussian(60, 32, seed=seed)
    whole = published_loop(torch.from_numpy(gradients), 60, alpha=1.0, penalty=0.0)
    den, gains = np.ones(32), []
    for row in whole:
        gains.append(np.log1p((gradients[row].astype(float) ** 2 / den).sum()))
        den += gradients[row].astype(float) ** 4
    kept = next((at for at, gain in enumerate(gains) if at and gain <= 0.5 * gains[0]), 60)
    config = SelectionConfig(budget=60, alpha=1.0, method="fisher", fisher="reference", early_stop_ratio=0.5)
    assert select(gradients, config).indices.tolist() == whole[:kept]


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


@pytest.mark.parametrize("constraints", [None, Constraints(include=np.array([5, 2]), near_cosine=0.9)])
def test_a_sweep_gives_what_each_setting_gives_alone(constraints: Constraints | None) -> None:
    sketches = gaussian(300, 10, shift=-0.3)
    config = SelectionConfig(budget=80)
    grid = Grid(conflict_penalty=(0.1, 0.5), early_stop_ratio=(None, 0.3, 0.6), alpha=("auto", 1.0))
    points = sweep(sketches, config, grid, constraints)
    assert len(points) == 12
    assert points[0].shared == 1.0  # the config's own setting
    for point in points:
        own = replace(
            config,
            conflict_penalty=point.conflict_penalty,
            early_stop_ratio=point.early_stop_ratio,
            alpha=point.alpha,
        )
        alone = select(sketches, own, constraints)
        np.testing.assert_array_equal(point.indices, alone.indices)
        np.testing.assert_allclose(point.log_det, alone.log_det)
        assert point.k == len(alone.indices)
        assert point.mean_conflict == pytest.approx(alone.conflicts.mean())
        assert point.certificate == pytest.approx(alone.certificate, abs=1e-4)
    with pytest.raises(ConfigError, match="early_stop_ratio is 2"):
        sweep(sketches, config, Grid(early_stop_ratio=(2.0,)))
    with pytest.raises(ConfigError, match="exact score"):
        sweep(sketches, SelectionConfig(budget=8, fisher="reference"), Grid())


@pytest.mark.parametrize("method", ["spice", "fisher"])
def test_an_early_stop_is_a_prefix(method: str) -> None:
    sketches = gaussian(150, shift=-0.2)
    whole = select(sketches, SelectionConfig(budget=150, method=method))
    for ratio in (0.3, 0.6, 0.9):
        config = SelectionConfig(budget=150, method=method, early_stop_ratio=ratio)
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
