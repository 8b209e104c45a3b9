"""Which rows each arm of a proof trains on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.proof_request import (
    ALL,
    NONE,
    RANDOM,
    RANDOM_TOKENS,
    SELECTED,
    IndicesArm,
    MethodArm,
    arm_label,
)
from workers.runtime.failures import JobError
from workers.selection.seeds import random_permutation
from workers.stages.methods import draws
from workers.training.steps import count_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from app.core.contracts.proof_request import Arm, ProofRequest
    from app.core.contracts.selection_request import SelectionSpec

    Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pool:
    """What arms are chosen from.

    Attributes:
        rows: Row number of each of the pool's samples, ascending, shape (n,).
        rows_total: Rows of the file.
        lengths: Tokens of each, shape (n,).
        candidates: Places among the samples that arms may have, ascending.
        outside: Places that they may not have, by reason.
    """

    rows: Places
    rows_total: int
    lengths: Places
    candidates: Places
    outside: Mapping[str, Places]


@dataclass(frozen=True, slots=True)
class ChosenArm:
    """An arm with its rows.

    Attributes:
        name: Of the arm.
        places: Among the pool's samples, in the order of picking; by seed where each has rows of its own, else under 0.
        steps: Of training.
        selects: Whether a selection was needed.
        drawn: Whether each seed has rows of its own.
        left_out: Rows of a given list, or that a selection has to pick, that were left out, by reason.
    """

    name: str
    places: Mapping[int, Places]
    steps: int
    selects: bool
    drawn: bool = False
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chooser:
    """Chooses the rows of all arms of a proof.

    Attributes:
        request: The proof's.
        spec: The selection of its job.
        pool: What is chosen from.
        select: Runs a selection over the candidates: its picks as places among the pool's samples.
        included: The row numbers that a selection has to pick, in the whole dataset.
    """

    request: ProofRequest
    spec: SelectionSpec
    pool: Pool
    select: Callable[[SelectionSpec], Places]
    included: Callable[[SelectionSpec], Places]

    def choose(self, selected: Places) -> list[ChosenArm]:
        """All arms.

        Args:
            selected: The picks of the selection itself, which give the rows and tokens of the arms beside it.

        Raises:
            JobError: An arm names rows that are not there, or none that it may train on.
        """
        return [self._arm(arm, selected) for arm in self.request.arms]

    def steps(self, places: Places, selected: Places) -> int:
        """Steps of an arm with a budget of its own: as many tokens a step as the selection's arm."""
        tokens = self._tokens(selected)
        return max(1, round(self.budget_steps(selected) * self._tokens(places) / tokens))

    def budget_steps(self, selected: Places) -> int:
        """Steps of every arm of the selection's budget, whether by rows or by tokens."""
        training = self.request.training
        return count_steps(self._tokens(selected), training.epochs, training.batch_tokens)

    def _arm(self, arm: Arm, selected: Places) -> ChosenArm:
        name, steps = arm_label(arm), self.budget_steps(selected)
        seeds = range(self.request.seeds)
        if isinstance(arm, IndicesArm):
            places, left_out = self._given(arm)
            return ChosenArm(name, {0: places}, self.steps(places, selected), selects=False, left_out=left_out)
        if isinstance(arm, MethodArm):
            spec = arm.settings(self.spec)
            drawn = draws(spec, spec.method)
            by_seed = {seed: self.select(_reseeded(spec, seed)) for seed in (seeds if drawn else (0,))}
            if spec.budget != self.spec.budget:
                steps = self.steps(by_seed[0], selected)
            _, left_out = self._allowed(self.included(spec))
            return ChosenArm(name, by_seed, steps, selects=True, drawn=drawn, left_out=left_out)
        tokens = self._tokens(selected)
        if arm == SELECTED:
            drawn = draws(self.spec, self.spec.method)
            by_seed = {seed: self.select(_reseeded(self.spec, seed)) for seed in seeds} if drawn else {0: selected}
        elif arm in (RANDOM, RANDOM_TOKENS):
            drawn = True
            by_seed = {
                seed: self._random(seed)[: len(selected)] if arm == RANDOM else self._random_tokens(seed, tokens)
                for seed in seeds
            }
        elif arm == ALL:
            drawn, by_seed = False, {0: self.pool.candidates}
            steps = self.steps(self.pool.candidates, selected)
        else:
            assert arm == NONE  # noqa: S101 - all names are told apart here
            drawn, by_seed, steps = False, {0: np.empty(0, dtype=np.int64)}, 0
        left_out = self._allowed(self.included(self.spec))[1] if arm == SELECTED else {}
        return ChosenArm(name, by_seed, steps, selects=arm == SELECTED, drawn=drawn, left_out=left_out)

    def _given(self, arm: IndicesArm) -> tuple[Places, dict[str, int]]:
        """The rows of a list that may be trained on, in its order, and how many may not, by reason."""
        indices, pool = np.array(arm.indices, dtype=np.int64), self.pool
        if int(indices.max()) >= pool.rows_total:
            raise JobError(
                "arm-impossible",
                "An arm names rows that are not there",
                "arms",
                f"arm {arm.name} names row {int(indices.max())}, and the dataset has {pool.rows_total} rows, from 0: "
                "leave it out",
            )
        kept, left_out = self._allowed(indices)
        if not len(kept):
            raise JobError(
                "arm-impossible",
                "An arm has no rows",
                "arms",
                f"none of the {len(indices)} rows of arm {arm.name} may be trained on: they are held out, equal to "
                "held-out rows, or can't be used",
            )
        return kept, left_out

    def _allowed(self, indices: Places) -> tuple[Places, dict[str, int]]:
        """The places of the rows that may be trained on, in their order, and how many may not, by reason."""
        pool = self.pool
        places = np.searchsorted(pool.rows, indices)
        usable = pool.rows[np.minimum(places, len(pool.rows) - 1)] == indices
        left_out = {"unusable": int((~usable).sum())}
        kept = places[usable]
        for reason, outside in pool.outside.items():
            there = np.isin(kept, outside)
            left_out[reason] = int(there.sum())
            kept = kept[~there]
        return kept, {reason: count for reason, count in left_out.items() if count}

    def _random(self, seed: int, role: str = "proof/random") -> Places:
        order = random_permutation(len(self.pool.candidates), seed=seed, role=role, layer="")
        return self.pool.candidates[order]

    def _random_tokens(self, seed: int, tokens: int) -> Places:
        """Random rows with as many tokens: of all beginnings of a permutation the nearest."""
        order = self._random(seed, "proof/random_tokens")
        totals = np.cumsum(self.pool.lengths[order])
        return order[: int(np.abs(totals - tokens).argmin()) + 1]

    def mixture(self, number: int, selected: Places, share: float) -> Places:
        """As many rows as the selection has: the first of its picks, and random ones beside them."""
        count = round(share * len(selected))
        order = self._random(number, "proof/premise")
        first = selected[:count]
        others = order[~np.isin(order, first)]
        return np.concatenate([first, others[: len(selected) - count]])

    def _tokens(self, places: Places) -> int:
        return int(self.pool.lengths[places].sum())


def shares_of(subsets: int) -> list[float]:
    """The selection's share of each subset of the premise: none for half of them, then rising to all."""
    random = subsets // 2
    mixed = subsets - random
    return [0.0] * random + [(number + 1) / mixed for number in range(mixed)]


def _reseeded(spec: SelectionSpec, seed: int) -> SelectionSpec:
    return spec.model_copy(update={"seed": spec.seed + seed})
