"""Targets, prices and stability, against their formulas."""

import numpy as np
import pytest

from workers.selection import (
    Constraints,
    SelectionConfig,
    SketchShapeError,
    cosines,
    metric,
    prices,
    reach,
    select,
    stability,
)


def rows(n: int, p: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, p))


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("targets", [2, 20])
def test_the_metric_is_the_root_of_its_definition(weight: float, targets: int) -> None:
    sketches, target = rows(15), rows(targets, seed=1)
    units = target / np.linalg.norm(target, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh((1 - weight) * np.eye(6) + weight * 6 * units.T @ units / targets)
    root = vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T
    directions = sketches / np.linalg.norm(sketches, axis=1, keepdims=True)
    np.testing.assert_allclose(metric(target, weight).of(sketches), directions @ root, atol=1e-6)
    np.testing.assert_allclose(metric(target, weight).of(sketches, unit=False), sketches @ root, atol=1e-5)


def test_prices_are_those_of_the_definition() -> None:
    sketches, target, protect = rows(30), rows(4, seed=1), rows(3, seed=2)
    sketches[7] = 0
    expected = np.zeros(30)
    for others, price in ((target, 0.3), (protect, 0.2)):
        mean = (others / np.linalg.norm(others, axis=1, keepdims=True)).mean(axis=0)
        for row in range(30):
            length = np.linalg.norm(sketches[row]) * np.linalg.norm(mean)
            expected[row] += price * max(0.0, -(sketches[row] @ mean) / length) if length else 0.0
    found = prices(sketches, target, protect, target_price=0.3, protect_price=0.2)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (prices(sketches) == 0).all()


def test_a_target_draws_its_own_rows_and_what_is_protected_is_pulled_against_less() -> None:
    """Two domains, each in a third of the directions, and noise in all."""
    rng = np.random.default_rng(0)
    code, prose = (np.pad(rng.standard_normal((500, 8)), ((0, 0), (shift, 16 - shift))) for shift in (0, 8))
    sketches = np.concatenate([code, prose]) + 0.5 * rng.standard_normal((1000, 24))
    target = code[:20] + 0.1 * rng.standard_normal((20, 24))
    config = SelectionConfig(budget=100, conflict_penalty=0.0)
    shares = [float((select(metric(target, w).of(sketches), config).indices < 500).mean()) for w in (0.0, 0.8, 1.0)]
    assert shares[0] < 0.55
    assert shares[1] > 0.65
    assert shares[2] > 0.95
    protect = rng.standard_normal((10, 24)) + 1.0
    dear = select(sketches, config, Constraints(price=prices(sketches, protect=protect, protect_price=1.0)))
    free = select(sketches, config)
    assert cosines(sketches[dear.indices], protect).mean() > cosines(sketches[free.indices], protect).mean() + 0.05
    turned = metric(target, 0.8).of(sketches)
    near, far = (reach(sketches, select(part, config).indices, target) for part in (turned, sketches))
    assert near.covered > far.covered


def test_what_the_picks_cover_is_the_log_det_with_the_metric_of_weight_one() -> None:
    sketches, target = rows(30), rows(3, seed=1)
    picks = np.array([4, 9, 2])
    turned = metric(target, 1.0).of(sketches)[picks].astype(float)
    found = reach(sketches, picks, target)
    assert found.covered == pytest.approx(np.linalg.slogdet(np.eye(6) + turned.T @ turned)[1], rel=1e-5)
    assert found.cosine == pytest.approx(cosines(sketches, target)[picks].mean())


def test_a_target_without_a_direction_is_refused() -> None:
    with pytest.raises(SketchShapeError, match="target has no row with a direction"):
        metric(np.zeros((3, 4)), 0.5)
    with pytest.raises(ValueError, match="weight is 2"):
        metric(rows(3), 2.0)


def test_stability_tells_a_row_that_is_always_picked_from_one_picked_by_chance() -> None:
    sketches = 0.3 * rows(200, 32)
    sketches[:5] = 10 * np.eye(32)[:5]
    config = SelectionConfig(budget=20, conflict_penalty=0.0, alpha=1.0, seed=3)
    found = stability(sketches, config, resketched=3, bootstrap=10)
    again = stability(sketches, config, resketched=3, bootstrap=10)
    np.testing.assert_array_equal(found.picked, again.picked)
    assert (found.picked[:5] == 1.0).all()
    assert 0.0 < np.median(found.picked[5:][found.picked[5:] > 0]) < 1.0
    assert ((found.picked[5:] >= 0) & (found.picked[5:] <= 1)).all()
    limited = stability(sketches, config, Constraints(include=np.array([77]), exclude=np.arange(5)), bootstrap=4)
    assert limited.picked[77] == 1.0
    assert np.nanmax(limited.picked[:5]) == 0.0
    with pytest.raises(ValueError, match="at least 1"):
        stability(sketches, config, resketched=0, bootstrap=0)
