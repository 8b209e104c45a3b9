"""Every bound against brute force over all subsets."""

from itertools import combinations

import numpy as np
import pytest

from workers.selection import ConfigError, SelectionConfig, select

CASES = [(seed, n, p, k) for seed in range(6) for n, p, k in [(8, 3, 3), (10, 6, 4), (9, 12, 5), (7, 2, 7)]]


def log_det(rows: np.ndarray, alpha: float) -> float:
    return float(np.linalg.slogdet(np.eye(rows.shape[1]) + alpha * rows.T @ rows)[1])


def optimum(sketches: np.ndarray, k: int, alpha: float) -> float:
    return max(log_det(sketches[list(subset)], alpha) for subset in combinations(range(len(sketches)), k))


def rows_of(seed: int, n: int, p: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, p)) * 10 ** rng.uniform(-0.5, 0.5, (n, 1))
    rows[n // 2] = rows[0]
    return rows


@pytest.mark.parametrize("penalty", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("seed", "n", "p", "k"), CASES)
def test_no_subset_beats_the_bounds(*, seed: int, n: int, p: int, k: int, penalty: float) -> None:
    sketches = rows_of(seed, n, p)
    selection = select(sketches, SelectionConfig(budget=k, conflict_penalty=penalty, curvature=penalty == 0.0))
    best, reached, proof = optimum(sketches, k, selection.alpha), selection.log_det[-1], selection.guarantees
    assert reached <= best + 1e-9
    assert best <= proof.optimum_upper_bound + 1e-9
    assert selection.certificate == pytest.approx(reached / proof.optimum_upper_bound)
    assert reached / best >= selection.certificate - 1e-12
    assert proof.additive_bound is not None
    assert best <= proof.additive_bound + 1e-9
    rho = 1 - (1 - 1 / k) ** k
    assert reached >= rho * (best - k * penalty) - 1e-9
    assert proof.epsilon_bound_violations == 0


@pytest.mark.parametrize(("seed", "n", "p", "k"), CASES)
def test_curvature_is_its_definition_and_its_factor_holds(seed: int, n: int, p: int, k: int) -> None:
    sketches = rows_of(seed, n, p)
    selection = select(sketches, SelectionConfig(budget=k, method="fisher", curvature=True))
    everything = log_det(sketches, selection.alpha)
    ratios = [
        (everything - log_det(np.delete(sketches, x, axis=0), selection.alpha))
        / np.log1p(selection.alpha * (sketches[x] @ sketches[x]))
        for x in range(n)
    ]
    proof = selection.guarantees
    assert proof.curvature == pytest.approx(1 - min(ratios), abs=1e-9)
    assert proof.curvature_factor == pytest.approx((1 - np.exp(-proof.curvature)) / proof.curvature)
    assert selection.log_det[-1] >= proof.curvature_factor * optimum(sketches, k, selection.alpha) - 1e-9


@pytest.mark.parametrize("p", [5, 40])
@pytest.mark.parametrize("norms", [[1.0] * 5, [1e-6, 1e-3, 1.0, 1e3, 1e6], [1e6] * 5, [1e-6] * 5])
def test_curvature_is_right_where_norms_are_wild(norms: list[float], p: int) -> None:
    """Each of five directions, turned at random, has so many copies of one row: all gains are known in closed form."""
    for copies in ([1, 1, 1, 1, 1], [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]):
        turned = np.linalg.qr(np.random.default_rng(p).standard_normal((p, 5)))[0].T
        sketches = np.repeat(turned * np.array(norms)[:, None], copies, axis=0)
        a = np.array(norms) ** 2
        ratios = np.log1p(a / (1 + (np.array(copies) - 1) * a)) / np.log1p(a)
        proof = select(sketches, SelectionConfig(budget=3, method="fisher", alpha=1.0, curvature=True)).guarantees
        assert proof.curvature == pytest.approx(1 - ratios.min(), abs=1e-9)


@pytest.mark.parametrize("method", ["spice", "fisher", "dpp", "grad_norm", "random"])
def test_the_certificate_is_about_the_whole_pool_for_every_method(method: str) -> None:
    sketches = rows_of(1, 15, 4)
    selection = select(sketches, SelectionConfig(budget=4, method=method))
    inside = sketches[selection.indices]
    gains = [
        log_det(np.vstack([inside, row]), selection.alpha) - log_det(inside, selection.alpha)
        for row in np.delete(sketches, selection.indices, axis=0)
    ]
    bound = selection.log_det[-1] + sum(sorted(gains)[-4:])
    assert selection.guarantees.optimum_upper_bound == pytest.approx(bound, rel=1e-9)
    assert optimum(sketches, 4, selection.alpha) <= bound + 1e-9


def test_the_epsilon_bound_is_that_of_the_definition() -> None:
    sketches = rows_of(5, 20, 4)
    selection = select(sketches, SelectionConfig(budget=12))
    for at, row in enumerate(selection.indices):
        z, before = sketches[row], sketches[selection.indices[:at]]
        a = selection.alpha * (z @ z)
        u = min(selection.alpha**2 * ((before @ z) ** 2).sum() / (1 + a), a / (1 + a))
        assert abs(selection.epsilons[at]) <= -np.log(1 - u) + 1e-12
    assert selection.guarantees.epsilon_bound_violations == 0


def test_curvature_is_refused_where_it_proves_nothing() -> None:
    with pytest.raises(ConfigError, match="lambda = 0"):
        SelectionConfig(budget=1, curvature=True)
    assert select(rows_of(0, 8, 3), SelectionConfig(budget=2)).guarantees.curvature_factor is None


def test_the_a_priori_theorem_is_not_claimed_for_other_methods() -> None:
    sketches = rows_of(0, 12, 3)
    for config in (
        SelectionConfig(budget=4, method="random"),
        SelectionConfig(budget=4, method="dpp"),
        SelectionConfig(budget=4, fisher="reference"),
    ):
        assert select(sketches, config).guarantees.additive_bound is None
    diagonal = SelectionConfig(budget=4, method="fisher", fisher="reference", curvature=True)
    assert select(sketches, diagonal).guarantees.curvature_factor is None


def test_in_float32_wild_norms_cost_the_certificate_next_to_nothing() -> None:
    rng = np.random.default_rng(2)
    sketches = rng.standard_normal((300, 10)) * 10 ** rng.uniform(-4, 4, (300, 1))
    sketches[250:] = sketches[:50]
    narrow = sketches.astype(np.float32)
    fast = select(narrow, SelectionConfig(budget=60))
    exact = select(narrow.astype(np.float64), SelectionConfig(budget=60))
    assert fast.certificate <= exact.certificate + 1e-12
    assert fast.certificate == pytest.approx(exact.certificate, abs=1e-4)
