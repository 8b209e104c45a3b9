"""Whether proofs are honest: random against random must come out so, and a planted effect must be found.

A bank of runs is trained once, each on rows of its own with a seed of its own, and proofs are drawn from it: five runs
of one kind against five of another. All go through the training room and the statistics that proofs go through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.proof_result import Verdict
from benchmarks.dirty_pools import llama_samples
from benchmarks.row import BenchRow
from workers.statistics.two_level import estimates
from workers.statistics.verdicts import verdict_of
from workers.training.lora import with_lora
from workers.training.scoring import Passes
from workers.training.steps import count_steps, rows_of_steps
from workers.training.trainer import TrainingPlan, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workers.data.samples import Sample
    from workers.models.proxy import ProxyModel

RANK, EPOCHS, LEARNING_RATE, BATCH_TOKENS, PIECE_TOKENS = 8, 3, 2e-3, 1024, 8192
SEEDS = 5
EFFECT = 0.01
"""Nats a token, the default of proofs."""


@dataclass(frozen=True)
class Size:
    """How much is trained and drawn."""

    rows: int
    held_out: int
    picks: int
    random_runs: int
    wrong_runs: int
    aa_proofs: int
    power_proofs: int


# The Llama learns from the rows that are left. With few of them it makes nothing of a prompt, and then another row's
# response is as good to train on as the right one: there is no effect to be found.
FULL = Size(rows=1000, held_out=200, picks=60, random_runs=60, wrong_runs=30, aa_proofs=200, power_proofs=50)
QUICK = Size(rows=300, held_out=60, picks=40, random_runs=12, wrong_runs=6, aa_proofs=20, power_proofs=10)


@dataclass(frozen=True)
class Bank:
    """Losses of held-out rows after each run, in nats a token: (runs, items).

    Attributes:
        right: Of runs on random rows.
        wrong: Of runs on random rows with the responses of others.
    """

    right: NDArray[np.float64]
    wrong: NDArray[np.float64]


def make_bank(size: Size) -> Bank:
    """Train all runs."""
    model, samples, swapped = llama_samples(size.rows + size.held_out)
    held_out = samples[: size.held_out]
    random = np.random.default_rng(0)

    def scored(number: int, *, wrong: bool) -> NDArray[np.float64]:
        places = size.held_out + random.permutation(size.rows)[: size.picks]
        pool = swapped if wrong else samples
        return losses_after(model, [pool[place] for place in places], held_out, number)

    return Bank(
        right=np.stack([scored(number, wrong=False) for number in range(size.random_runs)]),
        wrong=np.stack([scored(size.random_runs + number, wrong=True) for number in range(size.wrong_runs)]),
    )


def losses_after(
    model: ProxyModel, rows: Sequence[Sample], held_out: Sequence[Sample], seed: int
) -> NDArray[np.float64]:
    """Train a fresh adapter on the rows; the held-out rows' losses, (items,)."""
    steps = count_steps(sum(row.tokens for row in rows), EPOCHS, BATCH_TOKENS)
    batches = rows_of_steps(len(rows), epochs=EPOCHS, steps=steps, seed=seed)
    with with_lora(model.model, rank=RANK, seed=seed) as adapted:
        train(adapted, rows, TrainingPlan(batches, LEARNING_RATE, seed, PIECE_TOKENS))
        return Passes(model.model, PIECE_TOKENS).losses_per_token(held_out)


def draw_proofs(
    first: NDArray[np.float64], second: NDArray[np.float64], count: int, seed: int = 0
) -> NDArray[np.float64]:
    """Differences of `count` proofs, five runs of the first kind minus five of the second: (count, seeds, items).

    No proof has a run twice. Where both kinds are one bank, neither do its two arms share a run.
    """
    random = np.random.default_rng(seed)
    same = first is second
    tables = []
    for _ in range(count):
        of_first = random.permutation(len(first))
        of_second = of_first[SEEDS:] if same else random.permutation(len(second))
        tables.append(first[of_first[:SEEDS]] - second[of_second[:SEEDS]])
    return np.stack(tables)


def verdicts(differences: NDArray[np.float64], smallest_effect: float) -> list[Verdict]:
    """What each proof says, of a loss: (count, seeds, items)."""
    found = estimates(differences, np.arange(differences.shape[2]))
    return [verdict_of(one, one.p_value, smallest_effect, lower_is_better=True) for one in found]


def share(said: Sequence[Verdict], *which: Verdict) -> float:
    """The share of proofs that say one of these."""
    return sum(verdict in which for verdict in said) / len(said)


def rows(*, quick: bool) -> list[BenchRow]:
    """The figures."""
    size = QUICK if quick else FULL
    bank = make_bank(size)
    nothing = draw_proofs(bank.right, bank.right, size.aa_proofs)
    planted = draw_proofs(bank.right, bank.wrong, size.power_proofs)
    # With no smallest effect, so that no proof is excused by calling its difference too small to matter.
    false = share(verdicts(nothing, 0.0), Verdict.BETTER, Verdict.WORSE)
    named = share(verdicts(nothing, EFFECT), Verdict.EQUIVALENT, Verdict.NOT_ENOUGH_RUNS)
    found = share(verdicts(planted, EFFECT), Verdict.BETTER)
    what = f"bank of {size.random_runs} runs on {size.picks} random rows of {size.rows}, {size.held_out} held out"
    effect = float(planted.mean())
    return [
        BenchRow(
            "proof/aa_false",
            false,
            "share",
            0.07,
            f"{size.aa_proofs} proofs of random against random at {SEEDS} seeds that call it better or worse, whatever "
            f"its size; {what}",
            smaller_is_better=True,
        ),
        BenchRow(
            "proof/aa_named",
            named,
            "share",
            0.93,
            f"of these proofs, those that say equivalent or not enough runs, with {EFFECT:g} nats as smallest effect",
        ),
        BenchRow(
            "proof/power",
            found,
            "share",
            0.8,
            f"{size.power_proofs} proofs of right rows against rows with responses of others at {SEEDS} seeds that "
            f"find the right ones better; the difference is {effect:+.4f}; {what}, {size.wrong_runs} on wrong rows",
        ),
    ]
