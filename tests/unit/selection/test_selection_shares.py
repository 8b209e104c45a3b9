"""Shares of the picks by source, whatever ends the selection; and near-duplicates under a metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def shares_of(random: np.random.Generator, n: int) -> Shares:
    """Three sources with limits that some set of rows could meet."""
    least = random.dirichlet(np.ones(3)) * random.uniform(0, 0.9)
    return Shares(
        ("a", "b", "c"), random.integers(0, 3, n), least, np.minimum(1.0, least + random.uniform(0.1, 0.9, 3))
    )


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["rows", "tokens", "early stop"]))
@settings(max_examples=150, deadline=None)
def test_the_shares_hold_of_the_rows_that_come_out(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    n = int(random.integers(6, 40))
    sketches, shares = random.standard_normal((n, 5)), shares_of(random, n)
    tokens = random.integers(1, 9, n)
    others = Constraints()
    if kind == "tokens":
        others = Constraints(tokens=tokens, token_budget=int(random.integers(9, tokens.sum() + 9)))
    ratio = 0.7 if kind == "early stop" else None
    budget = None if kind == "tokens" else int(random.integers(1, n + 1))

    def run(rows: int | None, limits: Sources | None) -> Selection:
        config = SelectionConfig(budget=rows, early_stop_ratio=ratio)
        given = Constraints(tokens=others.tokens, token_budget=others.token_budget, sources=limits)
        return select(sketches, config, given)

    try:
        found, limits = select_in_shares(run, shares, budget)
    except ConstraintError:
        return
    held = np.bincount(shares.of_row[found.indices], minlength=3)
    k = len(found.indices)
    assert k > 0
    for source in range(3):
        assert shares.least[source] * k - 1e-6 <= held[source] <= shares.most[source] * k + 1e-6
        assert limits.least[source] <= held[source] <= limits.most[source]
    if kind == "tokens":
        assert tokens[found.indices].sum() <= others.token_budget
    if kind == "rows":
        assert k == budget


def test_shares_that_nothing_can_meet_are_refused_with_the_numbers() -> None:
    shares = Shares(("a", "b"), np.array([0] * 9 + [1]), np.array([0.0, 0.5]), np.ones(2))
    sketches = np.random.default_rng(0).standard_normal((10, 4))

    def run(rows: int | None, limits: Sources | None) -> Selection:
        return select(sketches, SelectionConfig(budget=rows), Constraints(sources=limits))

    with pytest.raises(ConstraintError, match="source 'b': at least 2 rows, and 1 can be selected"):
        select_in_shares(run, shares, 4)
    assert shares.of(3).least.tolist() == [0, 2]
    assert Shares(("a",), np.zeros(100, dtype=np.int64), np.array([0.29]), np.array([0.29])).of(100).most == [29]


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
