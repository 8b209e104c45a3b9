"""Selections for a target, and for what must not be lost: whose rows come out of a pool of two domains.

    python -m benchmarks purpose

The pool has docstrings of installed functions and the worked tasks that `lm_eval` carries; the target is 20 rows of one
of them that the pool has not. The share of the target's domain among the picks is held against that of the best rows by
mean cosine with the target, which is how LESS ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.row import BenchRow
from benchmarks.smollm2 import smollm2_directory
from benchmarks.text_gradients import documented_functions, tokenised, trained
from demo.examples import example_rows
from demo.rows import shuffled
from workers.data.samples import Sample
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.models.proxy import load_model
from workers.selection import Constraints, SelectionConfig, cosines, metric, prices, reach, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Values = NDArray[np.float32]

WEIGHT, PRICE = 0.8, 0.1
"""The defaults of a request."""
SHARE, BEHIND = 0.75, 0.2
"""Share of the target's domain that is promised, and how far it may be behind that of the mean cosine."""
DOCSTRINGS, TASKS = "docstrings", "tasks"


@dataclass(frozen=True)
class Size:
    """How large the pools are."""

    docstrings: int
    tasks: int
    target: int
    picks: int
    smollm2_rows: int
    smollm2_target: int
    smollm2_picks: int
    p: int


FULL = Size(820, 1180, 20, 200, 320, 12, 32, 1024)
QUICK = Size(130, 170, 8, 30, 24, 4, 6, 128)


@dataclass(frozen=True)
class Pool:
    """Sketches of two domains.

    Attributes:
        values: Of the pool, shape (n, p).
        domain: Of each row.
        target: Of rows of each domain that the pool has not.
        about: Model and rows, in words.
    """

    values: Values
    domain: NDArray[np.str_]
    target: dict[str, Values]
    about: str

    def share(self, picks: NDArray[np.int64], domain: str) -> float:
        """Share of a domain among some picks."""
        return float((self.domain[picks] == domain).mean())


def pairs_of(docstrings: int, tasks: int) -> dict[str, list[tuple[str, str]]]:
    """Questions with their answers, by domain."""
    worked = [(row.prompt, row.response) for row in shuffled(example_rows())]
    # every seventh function, so that neighbours in one file are not most of the rows
    functions = list(islice(documented_functions(), 0, 7 * docstrings, 7))
    return {DOCSTRINGS: functions[:docstrings], TASKS: worked[:tasks]}


def small_pool(size: Size) -> Pool:
    """By a small Llama that was trained on the rows."""
    pairs = pairs_of(size.docstrings + size.target, size.tasks + size.target)
    whole = [pair for domain in pairs.values() for pair in domain]
    samples = tokenised(whole)
    config = GradientConfig(sketch_dim=size.p, token_budget=8192)
    values = GradientEngine(trained(samples), config).sketch(samples).values
    return split(values, pairs, size.target, "a Llama of 2 blocks of 64 that was trained on the rows")


def smollm2_pool(size: Size) -> Pool:
    """By SmolLM2-135M-Instruct, on short rows."""
    half = size.smollm2_rows // 2 + size.smollm2_target
    pairs = pairs_of(half, half)
    model = load_model(smollm2_directory(), dtype="float32", device=torch.device("cpu"))
    samples = []
    for row, (question, answer) in enumerate(pair for domain in pairs.values() for pair in domain):
        before = model.tokenizer(f"{question}\n", add_special_tokens=False)["input_ids"][:48]
        after = model.tokenizer(answer, add_special_tokens=False)["input_ids"][:48]
        ids = np.array([*before, *after], dtype=np.int32)
        samples.append(Sample(row, ids, np.arange(len(ids)) >= len(before)))
    config = GradientConfig(sketch_dim=size.p, token_budget=2048)
    values = GradientEngine(model, config).sketch(samples).values
    return split(values, pairs, size.smollm2_target, "SmolLM2-135M-Instruct")


def split(values: Values, pairs: dict[str, list[tuple[str, str]]], target: int, about: str) -> Pool:
    """A pool, and the last rows of each domain apart."""
    domains = np.repeat(list(pairs), [len(one) for one in pairs.values()])
    ends = np.cumsum([len(one) for one in pairs.values()])
    apart = {name: np.arange(end - target, end) for name, end in zip(pairs, ends.tolist(), strict=True)}
    stays = np.setdiff1d(np.arange(len(values)), np.concatenate(list(apart.values())))
    counts = ", ".join(f"{int((domains[stays] == name).sum())} {name}" for name in pairs)
    about = f"{counts} as {about} sees them, {target} target rows"
    return Pool(values[stays], domains[stays], {name: values[rows] for name, rows in apart.items()}, about)


def targeted(pool: Pool, domain: str, k: int) -> NDArray[np.int64]:
    """The picks for a target, as a job with the defaults makes them; the filter against wrong rows apart."""
    target = pool.target[domain]
    price = Constraints(price=prices(pool.values, target, target_price=PRICE))
    return select(metric(target, WEIGHT).of(pool.values), SelectionConfig(budget=k), price).indices


def share_rows(pool: Pool, domain: str, k: int, name: str) -> list[BenchRow]:
    """Share of the target's domain, and how far it is behind the best rows by mean cosine."""
    target = pool.target[domain]
    chosen = pool.share(targeted(pool, domain, k), domain)
    nearest = pool.share(np.argsort(-cosines(pool.values, target), kind="stable")[:k], domain)
    plain = pool.share(select(unit(pool.values), SelectionConfig(budget=k)).indices, domain)
    there = pool.share(np.arange(len(pool.values)), domain)
    said = (
        f"{pool.about}, {k} picks, weight {WEIGHT}, price {PRICE}; share of {domain}: pool {there:.2f}, without a "
        f"target {plain:.2f}, best by mean cosine {nearest:.2f}"
    )
    return [
        BenchRow(f"purpose/{name}", chosen, "share", SHARE, said),
        BenchRow(f"purpose/{name}_less_cosine", chosen - nearest, "share", -BEHIND, said),
    ]


def protected_row(pool: Pool, k: int) -> BenchRow:
    """How much less picks for one domain pull against the other once that is protected."""
    target, protect = pool.target[TASKS], pool.target[DOCSTRINGS]
    against = np.maximum(0.0, -cosines(pool.values, protect, "protect"))
    turned = metric(target, WEIGHT).of(pool.values)
    pulls = []
    for others in (None, protect):
        price = Constraints(price=prices(pool.values, target, others, target_price=PRICE, protect_price=PRICE))
        picks = select(turned, SelectionConfig(budget=k), price).indices
        pulls.append(float(against[picks].sum()))
    without, with_it = pulls
    said = (
        f"{pool.about}, {k} picks for {TASKS}; sum of the negative cosines with the mean of {DOCSTRINGS}: "
        f"{without:.4f} without protection, {with_it:.4f} with it, of {float(against.sum()):.4f} in the pool"
    )
    return BenchRow("purpose/protected_pull", with_it - without, "cosine", 0.0, said, smaller_is_better=True)


def covered_row(pool: Pool, k: int) -> BenchRow:
    """Information in the target's directions, against the picks without a target."""
    target = pool.target[TASKS]
    own = reach(pool.values, targeted(pool, TASKS, k), target).covered
    plain = reach(pool.values, select(unit(pool.values), SelectionConfig(budget=k)).indices, target).covered
    said = f"{pool.about}, {k} picks; log-det in the target's directions {own:.1f} nats, without a target {plain:.1f}"
    return BenchRow("purpose/target_covered", own / plain, "x", 1.0, said)


def unit(values: Values) -> Values:
    """Rows at length one."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)


def rows(*, quick: bool) -> list[BenchRow]:
    """All rows of the suite."""
    size = QUICK if quick else FULL
    small, large = small_pool(size), smollm2_pool(size)
    shares: Sequence[list[BenchRow]] = [
        share_rows(small, DOCSTRINGS, size.picks, "target_share_docstrings"),
        share_rows(small, TASKS, size.picks, "target_share_tasks"),
        share_rows(large, DOCSTRINGS, size.smollm2_picks, "target_share_smollm2_docstrings"),
        share_rows(large, TASKS, size.smollm2_picks, "target_share_smollm2_tasks"),
    ]
    return [
        *(row for pair in shares for row in pair),
        covered_row(small, size.picks),
        protected_row(small, size.picks),
    ]
