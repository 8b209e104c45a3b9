"""Budgets and constraints against brute force over all subsets: what is returned is allowed, and each bound holds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from in_parts import select_in_parts
from numpy.typing import NDArray

from workers.selection import (
    ConfigError,
    ConstraintError,
    Constraints,
    Selection,
    SelectionConfig,
    Shares,
    Sources,
    cost_of,
    select,
    select_in_order,
    select_in_shares,
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

    @property
    def subsets(self) -> NDArray[np.bool_]:
        """Which rows are in each subset: subset s has row i if bit i of s is set, (2^n, n)."""
        n = len(self.sketches)
        return (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1

    def log_dets(self, alpha: float) -> NDArray[np.float64]:
        """F of every subset."""
        n, p = self.sketches.shape
        outer = (self.sketches[:, :, None] * self.sketches[:, None, :]).reshape(n, -1)
        grams = (self.subsets @ outer).reshape(-1, p, p)
        values: NDArray[np.float64] = np.linalg.slogdet(np.eye(p) + alpha * grams)[1]
        return values

    def allowed(self) -> NDArray[np.bool_]:
        """Whether each subset meets all constraints, by their definitions."""
        meets, limits = self.meets_counts(), self.constraints
        if limits.near_cosine is not None:
            near = self.near(limits.near_cosine)
            meets &= ~((self.subsets @ near) & self.subsets).any(axis=1)
        return meets

    def meets_counts(self) -> NDArray[np.bool_]:
        """Whether each subset meets all constraints but near-duplicates, which the rule for completing a set leaves."""
        limits, subsets = self.constraints, self.subsets
        meets = subsets[:, limits.include].all(axis=1) & ~subsets[:, limits.exclude].any(axis=1)
        if self.config.budget is not None:
            meets &= subsets.sum(axis=1) <= self.config.budget
        if limits.token_budget is not None:
            meets &= subsets @ limits.tokens <= limits.token_budget
        if limits.sources is not None:
            held = subsets.astype(int) @ (limits.sources.of_row[:, None] == np.arange(len(limits.sources.names)))
            meets &= ((held >= limits.sources.least) & (held <= limits.sources.most)).all(axis=1)
        return meets

    def near(self, cosine: float) -> NDArray[np.bool_]:
        """Which two rows are near-duplicates, rows that have to be in the set against each other aside, (n, n)."""
        units = self.sketches / np.linalg.norm(self.sketches, axis=1, keepdims=True)
        given = np.isin(np.arange(len(units)), self.constraints.include)
        return (units @ units.T >= cosine) & ~np.eye(len(units), dtype=bool) & ~(given[:, None] & given)


def number_of(rows: Iterable[int]) -> int:
    """The number of the subset of these rows."""
    return sum(1 << row for row in rows)


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
    limits, rows = case.constraints, case.sketches
    full = np.flatnonzero(case.meets_counts())
    near = case.near(2.0 if limits.near_cosine is None else limits.near_cosine)
    picks = limits.include.tolist()
    price = np.zeros(len(rows)) if limits.price is None else limits.price
    while case.config.budget is None or len(picks) < case.config.budget:
        allowed = [
            x
            for x in range(len(rows))
            if x not in picks
            and x not in limits.exclude
            and (full & (wanted := number_of([*picks, x])) == wanted).any()
            and not near[x, picks].any()
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


def selected(case: Case, allowed: NDArray[np.bool_]) -> Selection | None:
    """The selection; None where it is refused, which it may be only if no set is allowed, or near-duplicates bar it."""
    refused = ""
    try:
        return select(case.sketches, case.config, case.constraints)
    except ConstraintError as error:
        refused = str(error)
    full = allowed & (case.subsets.sum(axis=1) == case.config.budget) if case.config.budget is not None else allowed
    assert not full.any() or case.constraints.near_cosine is not None, refused
    return None


KINDS = [{"tokens"}, {"sources"}, {"rows"}, {"near"}, {"price"}, {"tokens", "sources", "rows", "near", "price"}]


@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: "all" if len(kinds) > 1 else next(iter(kinds)))
def test_what_is_returned_is_allowed_and_no_allowed_set_beats_its_bound(kinds: set[str]) -> None:
    selections = 0
    for seed in range(CASES):
        case = draw(np.random.default_rng(seed), kinds)
        log_dets, allowed = case.log_dets(1.0), case.allowed()
        selection = selected(case, allowed)
        if selection is None:
            continue
        selections += 1
        number = number_of(selection.indices.tolist())
        assert allowed[number], (seed, selection.indices)
        assert len(set(selection.indices.tolist())) == len(selection.indices)
        np.testing.assert_array_equal(selection.indices[: len(case.constraints.include)], case.constraints.include)
        reached = selection.marginal_gains.sum()
        assert reached == pytest.approx(log_dets[number], abs=1e-9)
        best = log_dets[allowed].max()
        assert best <= selection.guarantees.optimum_upper_bound + 1e-9, seed
        assert reached >= selection.certificate * best - 1e-9, seed
        if selection.guarantees.additive_bound is not None:
            assert best <= selection.guarantees.additive_bound + 1e-9, seed
    assert selections > CASES / 3


@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: "all" if len(kinds) > 1 else next(iter(kinds)))
def test_each_pick_is_the_best_with_which_the_set_can_be_completed(kinds: set[str]) -> None:
    for seed in range(0, CASES, 5):
        case = draw(np.random.default_rng(seed), kinds)
        log_dets = case.log_dets(1.0)
        selection = selected(case, case.allowed())
        if selection is None:
            continue
        runs = [naive(case, by_token=by_token) for by_token in ([True, False] if "tokens" in kinds else [False])]
        best = max(runs, key=lambda picks: log_dets[number_of(picks)])
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
    spread = select_in_parts(sketches, config, 4, limits)
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
    np.testing.assert_array_equal(select_in_parts(sketches, config, 1, limits).indices, whole.indices)


@pytest.mark.parametrize("method", ["spice", "random"])
@pytest.mark.parametrize(
    ("budget", "near", "picks", "stop"),
    [(100, None, 3, "exhausted"), (9, None, 3, "budget"), (8, None, 2, "budget"), (100, 0.9, 2, "exhausted")],
)
def test_a_token_budget_ends_a_selection_that_it_bounds(
    method: str, budget: int, near: float | None, picks: int, stop: str
) -> None:
    """Rows of 2, 3 and 4 tokens, the first two alike: 100 tokens are no reason to end, whatever else is."""
    limits = Constraints(tokens=np.array([2, 3, 4]), token_budget=budget, near_cosine=near)
    shares = Shares(("all",), np.zeros(3, dtype=np.int64), np.zeros(1), np.ones(1))
    rows, config = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), SelectionConfig(budget=None, method=method)

    def run(count: int | None, limited: Sources | None) -> Selection:
        return select(rows, replace(config, budget=count), replace(limits, sources=limited))

    for found in (select(rows, config, limits), select_in_shares(run, shares, None)[0]):
        assert (len(found.indices), found.stop_reason) == (picks, stop)


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
