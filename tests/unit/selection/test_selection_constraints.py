"""Budgets and constraints against brute force over all subsets: what is returned is allowed, and each bound holds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest
import torch

from workers.selection import (
    ConfigError,
    ConstraintError,
    Constraints,
    Selection,
    SelectionConfig,
    Sources,
    cost_of,
    select,
    select_in_order,
    select_partitioned,
)

CASES = 1000


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Case:
    """A few rows, so few that all their subsets can be looked at."""

    sketches: np.ndarray
    config: SelectionConfig
    constraints: Constraints

    def log_dets(self, alpha: float) -> dict[tuple[int, ...], float]:
        """F of every subset."""
        n, p = self.sketches.shape
        subsets = [subset for size in range(n + 1) for subset in combinations(range(n), size)]
        members = np.zeros((len(subsets), n))
        for at, subset in enumerate(subsets):
            members[at, list(subset)] = 1
        grams = np.einsum("sn,ni,nj->sij", members, self.sketches, self.sketches)
        return dict(zip(subsets, np.linalg.slogdet(np.eye(p) + alpha * grams)[1], strict=True))

    def allows(self, rows: tuple[int, ...]) -> bool:
        """Whether a set meets the constraints, by their definitions."""
        limits, inside = self.constraints, list(rows)
        if not set(limits.include.tolist()) <= set(rows) or set(limits.exclude.tolist()) & set(rows):
            return False
        if self.config.budget is not None and len(rows) > self.config.budget:
            return False
        if limits.token_budget is not None and limits.tokens[inside].sum() > limits.token_budget:
            return False
        if limits.sources is not None:
            held = np.bincount(limits.sources.of_row[inside], minlength=len(limits.sources.names))
            if (held < limits.sources.least).any() or (held > limits.sources.most).any():
                return False
        return limits.near_cosine is None or not self.near(inside)

    def near(self, rows: list[int]) -> bool:
        """Whether two of some rows are near-duplicates, rows that have to be in the set against each other aside."""
        units = self.sketches / np.linalg.norm(self.sketches, axis=1, keepdims=True)
        given = set(self.constraints.include.tolist())
        return any(
            units[x] @ units[y] >= self.constraints.near_cosine
            for x, y in combinations(rows, 2)
            if not (x in given and y in given)
        )


def draw(rng: np.random.Generator, kinds: set[str]) -> Case:
    n, p = int(rng.integers(4, 9)), int(rng.integers(1, 4))
    sketches = rng.standard_normal((n, p)) * 10 ** rng.uniform(-0.5, 0.5, (n, 1))
    if rng.random() < 0.5:
        sketches[n // 2] = sketches[0] + 0.01 * rng.standard_normal(p)
    given: dict[str, object] = {}
    budget: int | None = int(rng.integers(1, n))
    order = rng.permutation(n)
    kept = order[: rng.integers(0, 3)] if "rows" in kinds else order[:0]
    budget = max(budget, len(kept))
    if "rows" in kinds:
        given |= {"include": kept, "exclude": order[n - 1 :] if budget < n - 1 else order[:0]}
    if "tokens" in kinds:
        tokens = rng.integers(1, 20, n)
        needed = int(tokens[kept].sum())
        given |= {"tokens": tokens, "token_budget": int(rng.integers(needed + int(tokens.min()), tokens.sum() + 1))}
        budget = None if rng.random() < 0.7 else budget
    if "sources" in kinds:
        count = int(rng.integers(1, 4))
        of_row = rng.integers(0, count, n)
        least, there = rng.integers(0, 3, count), np.bincount(of_row, minlength=count)
        most = np.maximum(least, rng.integers(0, n, count))
        least = np.minimum(least, there)
        given["sources"] = Sources(tuple("abc"[:count]), of_row, least, most)
    if "near" in kinds:
        given["near_cosine"] = float(rng.choice([0.5, 0.9, 0.99]))
    if "price" in kinds:
        given["price"] = rng.uniform(0, 0.5, n)
    penalty = float(rng.choice([0.0, 0.1, 1.0]))
    return Case(sketches, SelectionConfig(budget=budget, conflict_penalty=penalty, alpha=1.0), Constraints(**given))


def naive(case: Case, *, by_token: bool) -> list[int]:
    """The greedy by definition: the row of the largest score among those with which the set can still be completed."""
    n = len(case.sketches)
    limits, rows = case.constraints, case.sketches
    every = [subset for size in range(n + 1) for subset in combinations(range(n), size)]
    full = [set(subset) for subset in every if _meets_counts(case, subset)]
    picks = limits.include.tolist()
    price = np.zeros(n) if limits.price is None else limits.price
    while case.config.budget is None or len(picks) < case.config.budget:
        allowed = [
            x
            for x in range(n)
            if x not in picks
            and x not in limits.exclude
            and any({*picks, x} <= whole for whole in full)
            and (limits.near_cosine is None or not case.near([*picks, x]))
        ]
        if not allowed:
            break
        information = np.eye(rows.shape[1]) + rows[picks].T @ rows[picks]
        total = rows[picks].sum(axis=0)
        scores = []
        for x in allowed:
            gain = np.log1p(rows[x] @ np.linalg.solve(information, rows[x]))
            length = np.linalg.norm(rows[x]) * np.linalg.norm(total)
            conflict = max(0.0, -(rows[x] @ total) / length) if picks else 0.0
            score = gain - case.config.conflict_penalty * conflict - price[x]
            scores.append(score / limits.tokens[x] if by_token else score)
        picks.append(allowed[int(np.argmax(scores))])
    return picks


def _meets_counts(case: Case, rows: tuple[int, ...]) -> bool:
    """Whether a set meets all but near-duplicates, which the rule for completing a set leaves aside."""
    limits = case.constraints
    without = replace(limits, near_cosine=None)
    return Case(case.sketches, case.config, without).allows(rows)


def found(case: Case, allowed: list[tuple[int, ...]]) -> Selection | None:
    """The selection; None where it is refused, which it may be only if no set is allowed, or near-duplicates bar it."""
    refused = ""
    try:
        return select(case.sketches, case.config, case.constraints)
    except ConstraintError as error:
        refused = str(error)
    full = [rows for rows in allowed if case.config.budget is None or len(rows) == case.config.budget]
    assert not full or case.constraints.near_cosine is not None, refused
    return None


KINDS = [{"tokens"}, {"sources"}, {"rows"}, {"near"}, {"price"}, {"tokens", "sources", "rows", "near", "price"}]


@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: "all" if len(kinds) > 1 else next(iter(kinds)))
def test_what_is_returned_is_allowed_and_no_allowed_set_beats_its_bound(kinds: set[str]) -> None:
    selected = 0
    for seed in range(CASES):
        case = draw(np.random.default_rng(seed), kinds)
        log_dets = case.log_dets(1.0)
        allowed = [rows for rows in log_dets if case.allows(rows)]
        selection = found(case, allowed)
        if selection is None:
            continue
        selected += 1
        rows = tuple(sorted(selection.indices.tolist()))
        assert case.allows(rows), (seed, rows)
        np.testing.assert_array_equal(selection.indices[: len(case.constraints.include)], case.constraints.include)
        reached = selection.marginal_gains.sum()
        assert reached == pytest.approx(log_dets[rows], abs=1e-9)
        best = max(log_dets[rows] for rows in allowed)
        assert best <= selection.guarantees.optimum_upper_bound + 1e-9, seed
        assert reached >= selection.certificate * best - 1e-9, seed
        if selection.guarantees.additive_bound is not None:
            assert best <= selection.guarantees.additive_bound + 1e-9, seed
    assert selected > CASES / 3


@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: "all" if len(kinds) > 1 else next(iter(kinds)))
def test_each_pick_is_the_best_with_which_the_set_can_be_completed(kinds: set[str]) -> None:
    for seed in range(0, CASES, 5):
        case = draw(np.random.default_rng(seed), kinds)
        log_dets = case.log_dets(1.0)
        selection = found(case, [rows for rows in log_dets if case.allows(rows)])
        if selection is None:
            continue
        runs = [naive(case, by_token=by_token) for by_token in ([True, False] if "tokens" in kinds else [False])]
        best = max(runs, key=lambda picks: log_dets[tuple(sorted(picks))])
        assert selection.indices.tolist() == best, seed


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_many_fronts_keep_to_the_constraints(penalty: float) -> None:
    rng = np.random.default_rng(0)
    sketches = rng.standard_normal((3000, 24)).astype(np.float32) - 0.1
    sketches[1500:] = sketches[:1500] + 1e-3 * rng.standard_normal((1500, 24)).astype(np.float32)
    tokens, of_row = rng.integers(10, 200, 3000), rng.integers(0, 3, 3000)
    sources = Sources(("a", "b", "c"), of_row, np.array([0, 80, 0]), np.array([20, 400, 400]))
    limits = Constraints(
        tokens=tokens, token_budget=20_000, sources=sources, near_cosine=0.98, include=np.array([7, 5])
    )
    selection = select(sketches, SelectionConfig(budget=None, conflict_penalty=penalty), limits)
    picks = selection.indices
    units = sketches[picks].astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    held = np.bincount(of_row[picks], minlength=3)
    assert picks[:2].tolist() == [7, 5]
    assert tokens[picks].sum() <= 20_000 < tokens[picks].sum() + tokens.min() + 50
    assert held[0] == 20
    assert held[1] >= 80
    assert np.triu(units @ units.T, 1).max() < 0.98
    assert selection.stop_reason == "budget"


def test_parts_and_orders_keep_to_the_constraints_too() -> None:
    rng = np.random.default_rng(1)
    sketches, of_row = rng.standard_normal((600, 12)), rng.integers(0, 3, 600)
    sources = Sources(("a", "b", "c"), of_row, np.array([15, 0, 0]), np.array([60, 10, 60]))
    limits = Constraints(sources=sources, include=np.array([3]), exclude=np.arange(100, 200), near_cosine=0.9)
    config = SelectionConfig(budget=60, alpha=0.1)
    whole = select(sketches, config, limits)
    spread = select_partitioned(sketches, config, 4, limits)
    ordered = select_in_order(sketches, np.arange(600)[::-1], config, limits)
    drawn = select(sketches, SelectionConfig(budget=60, method="random", alpha=0.1), limits)
    for selection in (whole, spread, ordered, drawn):
        held = np.bincount(of_row[selection.indices], minlength=3)
        assert (held >= sources.least).all()
        assert (held <= sources.most).all()
        assert selection.indices[0] == 3
        assert len(selection.indices) == 60
        assert not ((selection.indices >= 100) & (selection.indices < 200)).any()
    assert spread.log_det[-1] >= 0.95 * whole.log_det[-1]
    np.testing.assert_array_equal(select_partitioned(sketches, config, 1, limits).indices, whole.indices)


def test_the_cost_names_what_kept_the_unconstrained_picks_out() -> None:
    sketches = 0.1 * np.eye(12)
    sketches[:6] = np.diag([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]) @ np.eye(6, 12)
    sketches[6] = 0.9 * sketches[0] + 0.01 * sketches[1]
    sketches[7] = 2.9 * np.eye(12)[7]
    tokens, of_row = np.ones(12, dtype=int), np.zeros(12, dtype=int)
    tokens[2], of_row[[3, 7]] = 9, 1
    limits = Constraints(
        tokens=tokens,
        token_budget=9,
        exclude=np.array([1]),
        near_cosine=0.9,
        sources=Sources(("a", "b"), of_row, np.array([0, 0]), np.array([9, 1])),
        include=np.array([6, 7]),
    )
    config = SelectionConfig(budget=4, alpha=1.0, conflict_penalty=0.0)
    selection = select(sketches, config, limits)
    assert selection.indices.tolist() == [6, 7, 4, 5]
    cost = cost_of(sketches, selection, config, limits)
    assert sorted(cost.unconstrained) == [0, 1, 2, 3]
    assert cost.kept_out == {"near_duplicates": 1, "exclude": 1, "tokens": 1, "sources": 1}
    free = select(sketches, config)
    assert cost.log_det == pytest.approx(free.log_det[-1] - selection.log_det[-1])


@pytest.mark.parametrize(
    ("budget", "given", "message"),
    [
        (None, {}, "budget is None"),
        (3, {"tokens": np.ones(10, dtype=int), "token_budget": 0}, "token_budget is 0"),
        (3, {"tokens": np.arange(10), "token_budget": 5}, "row 0 has no tokens"),
        (None, {"tokens": np.full(10, 9), "token_budget": 8}, "the shortest row has 9 tokens"),
        (3, {"near_cosine": 1.5}, "near_cosine is 1.5"),
        (1, {"include": np.array([1, 2])}, "include has 2 rows, budget is 1"),
        (3, {"include": np.array([1]), "exclude": np.array([1])}, "row 1 is in include and in exclude"),
        (3, {"include": np.array([12])}, "row 12 of 10"),
        (3, {"price": np.full(10, -1.0)}, "price"),
        (3, {"sources": ([2, 2], [9, 9])}, "the fewest rows of each source are 4, budget is 3"),
        (3, {"sources": ([6, 0], [9, 9])}, "'a': at least 6 rows, and 5 can be selected"),
        (3, {"sources": ([0, 0], [1, 1])}, "the most rows of each source are 2, budget is 3"),
        (3, {"sources": ([2, 0], [1, 3])}, "'a': at least 2 rows and at most 1"),
    ],
)
def test_what_cannot_be_met_is_refused_with_its_numbers(budget: int | None, given: dict, message: str) -> None:
    if "sources" in given:
        least, most = (np.array(part) for part in given["sources"])
        given = {"sources": Sources(("a", "b"), np.arange(10) // 5, least, most)}
    sketches = np.random.default_rng(0).standard_normal((10, 4))
    with pytest.raises((ConfigError, ConstraintError), match=message):
        select(sketches, SelectionConfig(budget=budget), Constraints(**given))
