"""Shares of the picks by source, whatever ends the selection; and near-duplicates under a metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from workers.selection import (
    ConstraintError,
    Constraints,
    Selection,
    SelectionConfig,
    Shares,
    Sources,
    cost_of,
    metric,
    select,
    select_in_shares,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


CASES = 1000


@dataclass(frozen=True)
class Case:
    """A few rows with shares by source, so few that all their subsets can be looked at.

    Attributes:
        sketches: Shape (n, p).
        shares: Of three sources.
        budget: Rows to pick; None where tokens end the selection.
        tokens: Of each row, shape (n,).
        token_budget: Tokens of the picks at most, or None.
        ratio: At which the greedy stops early, or None.
    """

    sketches: NDArray[np.float64]
    shares: Shares
    budget: int | None
    tokens: NDArray[np.int64]
    token_budget: int | None
    ratio: float | None

    @classmethod
    def drawn(cls, seed: int, kind: str) -> Case:
        random = np.random.default_rng(seed)
        n = int(random.integers(4, 10))
        least = random.dirichlet(np.ones(3)) * random.uniform(0, 0.6)
        most = np.minimum(1.0, least + random.uniform(0.2, 1.0, 3))
        tokens = random.integers(1, 9, n)
        return cls(
            random.standard_normal((n, 6)),
            Shares(("a", "b", "c"), random.integers(0, 3, n), least, most),
            None if kind == "tokens" else int(random.integers(1, n + 1)),
            tokens,
            int(random.integers(9, tokens.sum() + 9)) if kind == "tokens" else None,
            0.3 if kind == "early stop" else None,
        )

    def run(self, rows: int | None, limits: Sources | None) -> Selection:
        config = SelectionConfig(budget=rows, early_stop_ratio=self.ratio, alpha=1.0)
        tokens = None if self.token_budget is None else self.tokens
        return select(self.sketches, config, Constraints(tokens=tokens, token_budget=self.token_budget, sources=limits))

    def subsets(self) -> NDArray[np.bool_]:
        """Subset s has row i if bit i of s is set, (2^n, n)."""
        n = len(self.sketches)
        return (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1

    def allowed(self) -> NDArray[np.bool_]:
        """Whether each subset meets the shares, of as many rows as it has, and the budget, by their definitions."""
        subsets, shares = self.subsets(), self.shares
        size = subsets.sum(axis=1)
        held = subsets.astype(int) @ (shares.of_row[:, None] == np.arange(3))
        least = np.ceil(np.round(shares.least * size[:, None], 6))
        most = np.floor(np.round(shares.most * size[:, None], 6))
        meets: NDArray[np.bool_] = (size > 0) & ((held >= least) & (held <= most)).all(axis=1)
        if self.token_budget is not None:
            return meets & (subsets @ self.tokens <= self.token_budget)
        return meets & (size == self.budget if self.ratio is None else size <= self.budget)

    def log_dets(self) -> NDArray[np.float64]:
        """F of every subset."""
        n, p = self.sketches.shape
        outer = (self.sketches[:, :, None] * self.sketches[:, None, :]).reshape(n, -1)
        values: NDArray[np.float64] = np.linalg.slogdet(np.eye(p) + (self.subsets() @ outer).reshape(-1, p, p))[1]
        return values


@pytest.mark.parametrize("kind", ["rows", "tokens", "early stop"])
def test_the_shares_hold_of_the_rows_that_come_out_and_no_allowed_set_beats_the_bound(kind: str) -> None:
    """With a budget in rows a refusal says that there is no such set; elsewhere, that the greedy came to none."""
    selections = 0
    for seed in range(CASES):
        case = Case.drawn(seed, kind)
        allowed = case.allowed()
        try:
            found, limits = select_in_shares(case.run, case.shares, case.budget)
        except ConstraintError:
            assert kind != "rows" or not allowed.any(), seed
            continue
        selections += 1
        number = sum(1 << int(row) for row in found.indices)
        assert allowed[number], (seed, found.indices)
        held = np.bincount(case.shares.of_row[found.indices], minlength=3)
        assert ((limits.least <= held) & (held <= limits.most)).all(), seed
        log_dets = case.log_dets()
        assert found.log_det[-1] == pytest.approx(log_dets[number], abs=1e-9)
        alike = allowed & (case.subsets().sum(axis=1) == len(found.indices))
        best = log_dets[alike].max()
        assert best <= found.guarantees.optimum_upper_bound + 1e-9, seed
        assert found.log_det[-1] >= found.certificate * best - 1e-9, seed
    assert selections > CASES / 4


def test_shares_that_nothing_can_meet_are_refused_with_the_numbers() -> None:
    shares = Shares(("a", "b"), np.array([0] * 9 + [1]), np.array([0.0, 0.5]), np.ones(2))
    sketches = np.random.default_rng(0).standard_normal((10, 4))

    def run(rows: int | None, limits: Sources | None) -> Selection:
        return select(sketches, SelectionConfig(budget=rows), Constraints(sources=limits))

    with pytest.raises(ConstraintError, match="source 'b': at least 2 rows, and 1 can be selected"):
        select_in_shares(run, shares, 4)
    assert shares.of(3).least.tolist() == [0, 2]
    assert Shares(("a",), np.zeros(100, dtype=np.int64), np.array([0.29]), np.array([0.29])).of(100).most == [29]


def test_what_left_too_few_rows_for_the_shares_is_named() -> None:
    """Of equal rows the second gains log 1.5 / log 2 = 0.58 of the first; of one row neither half is a whole row."""
    halves = Shares(("a", "b"), np.array([0, 0, 1, 1]), np.full(2, 0.5), np.full(2, 0.5))

    def run(rows: int | None, limits: Sources | None) -> Selection:
        config = SelectionConfig(budget=rows, early_stop_ratio=0.9, alpha=1.0)
        return select(np.ones((4, 1)), config, Constraints(sources=limits))

    with pytest.raises(
        ConstraintError, match="at least 2 rows, and the other constraints left 1, where early_stop_ratio leaves 1 rows"
    ):
        select_in_shares(run, halves, 4)


def test_near_duplicates_are_told_by_the_rows_before_the_metric() -> None:
    """Under a metric of weight 1 rows that differ outside the target's directions come to lie on one another."""
    random = np.random.default_rng(1)
    sketches = random.standard_normal((40, 8)).astype(np.float32)
    turned = metric(random.standard_normal((2, 8)), 1.0).of(sketches)
    units = sketches / np.linalg.norm(sketches, axis=1, keepdims=True)
    config = SelectionConfig(budget=40)
    near = Constraints(near_cosine=0.6, near_rows=sketches)
    found = select(turned, config, near)
    cosines = units[found.indices] @ units[found.indices].T
    assert cosines[~np.eye(len(cosines), dtype=bool)].max() < 0.6
    rest = np.setdiff1d(np.arange(40), found.indices)
    assert (units[rest] @ units[found.indices].T).max(axis=1).min() >= 0.6 - 1e-6, "and no more than these were closed"
    assert len(select(turned, config, Constraints(near_cosine=0.6)).indices) < len(found.indices)


def test_each_constraint_is_told_by_itself_and_a_price_is_paid_in_all() -> None:
    random = np.random.default_rng(2)
    sketches, price = random.standard_normal((50, 6)), random.uniform(0, 1, 50)
    config = SelectionConfig(budget=10)
    limits = Constraints(exclude=np.arange(5), include=np.array([7, 8]), price=price)
    chosen = select(sketches, config, limits)
    cost = cost_of(sketches, chosen, config, limits)
    free = select(sketches, config, Constraints(price=price))
    assert set(cost.each) == {"include", "exclude"}
    for name, alone in (
        ("exclude", Constraints(exclude=np.arange(5), price=price)),
        ("include", Constraints(include=np.array([7, 8]), price=price)),
    ):
        one = select(sketches, config, alone)
        assert cost.each[name].log_det == pytest.approx(free.log_det[-1] - one.log_det[-1], abs=1e-9)
        assert cost.each[name].certificate == pytest.approx(one.certificate)
        assert cost.each[name].kept_out == len(set(free.indices) - set(one.indices))
    assert cost.log_det == pytest.approx(free.log_det[-1] - chosen.log_det[-1], abs=1e-9)
