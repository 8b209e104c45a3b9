"""The methods that order rows by something else than marginal gains, as `selection.method` and as baselines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from workers.selection import (
    ConstraintError,
    by_score,
    by_turns,
    facility_location,
    helped_by_prompt,
    influences,
    matching_pursuit,
    middle_third,
    nearest_picks,
    ratings,
    select_in_order,
    transport,
)
from workers.stages.features import in_target, name_in_pool, name_in_target
from workers.statistics.row_figures import length_factors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from app.core.contracts.selection_request import Method, SelectionSpec
    from workers.gradients.features import Feature
    from workers.gradients.shards import ShardStore, StoredSketches
    from workers.selection import Constraints, Progress, Selection, SelectionConfig
    from workers.stages.purposes import Directions

DRAWING_METHODS = frozenset({"random", "tsds"})
"""Methods whose picks the seed decides, beside `perplexity` in the middle."""
WEIGHING_METHODS = frozenset({"grad_match", "facility_location"})
"""Methods that give each pick a weight."""


def draws(spec: SelectionSpec, method: Method) -> bool:
    """Whether a method's picks depend on the seed: one run of such a baseline says little."""
    return method in DRAWING_METHODS or (method == "perplexity" and spec.perplexity == "mid")


@dataclass(frozen=True, slots=True, eq=False)
class TargetRows:
    """What rows are compared with: q target rows.

    Attributes:
        features: Their features, (q, ...), float32: those that the request's methods need.
        groups: Group of each, shape (q,), 0 to g - 1.
        goal: Sum of their gradients' sketches at the lengths that are selected from, shape (p,), float64.
    """

    features: Mapping[Feature, NDArray[np.float32]]
    groups: NDArray[np.int64]
    goal: NDArray[np.float64]


def target_rows(
    spec: SelectionSpec,
    directions: Directions,
    stored: StoredSketches,
    store: ShardStore,
    pool: str,
    should_stop: Callable[[], bool],
) -> TargetRows:
    """The target rows that have a direction, with what the request's methods need of them.

    Args:
        spec: The request's.
        directions: Of the target.
        stored: Its sketches, as they were loaded.
        store: Where they are.
        pool: What `ShardStore.dataset` calls the rows that are compared with them.
        should_stop: Asked once a file.

    Raises:
        ShardDamaged: A feature is missing or damaged.
        Stopped: `should_stop` said so.
    """
    pointing = np.flatnonzero(stored.finite)[np.any(stored.values != 0, axis=1)]
    features = {
        feature: _in_order(store.feature_tiles(name_in_target(feature, pool), should_stop), store.samples)[pointing]
        for feature in in_target(spec)
    }
    groups = np.full(len(pointing), len(directions.groups), dtype=np.int64)  # rows of no group are one of their own
    for number, places in enumerate(directions.groups.values()):
        groups[places] = number
    values = directions.values.astype(np.float64)
    factors = length_factors(np.linalg.norm(values, axis=1), spec.normalize)
    goal = values.sum(axis=0) if factors is None else factors @ values
    return TargetRows(features, groups, goal)


@dataclass(frozen=True, eq=False)
class RowFeatures:
    """What was kept of the m usable rows besides sketches.

    Attributes:
        store: Where it is.
        finite: Which samples are usable rows, shape (samples,).
        should_stop: Asked once a file.
        without: Shards that have no sketches, and nothing else either.
    """

    store: ShardStore
    finite: NDArray[np.bool_]
    should_stop: Callable[[], bool]
    without: frozenset[int] = frozenset()

    def all(self, feature: Feature) -> NDArray[np.float32]:
        """A feature of all usable rows, (m, ...)."""
        return _in_order(self._tiles(feature), int(self.finite.sum()))

    def cosines(self, target: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of the rows with target rows at each checkpoint, (checkpoints, m, q); one file is in memory at a time."""
        each = ((at, np.einsum("ncp,qcp->ncq", tile, target)) for at, tile in self._tiles("influence"))
        return _in_order(each, int(self.finite.sum())).transpose(1, 0, 2)

    def _tiles(self, feature: Feature) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Places among the usable rows, and their values."""
        name, place = name_in_pool(feature, self.store.dataset), np.cumsum(self.finite) - 1
        for at, tile in self.store.feature_tiles(name, self.should_stop, self.without):
            usable = self.finite[at]
            yield place[at[usable]], tile[usable]


def _in_order(tiles: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]], rows: int) -> NDArray[np.float32]:
    """Tiles of rows, which come in no order, as one array; (rows, ...)."""
    at, tile = next(tiles)
    found = np.empty((rows, *tile.shape[1:]), dtype=np.float32)
    found[at] = tile
    for at, tile in tiles:
        found[at] = tile
    return found


@dataclass(frozen=True, eq=False)
class Methods:
    """Runs the methods over candidates.

    Attributes:
        spec: The request's.
        places: The n candidates among the m usable rows, ascending, shape (n,), int64.
        sketches: Of the candidates, shape (n, p).
        values: What picks are measured by, shape (n, p).
        loss: Mean loss of a response token of each candidate, in nats, shape (n,).
        ifd: IFD of each candidate, NaN where it is not known, shape (n,).
        response_tokens: Tokens under the loss of each candidate, shape (n,), int64.
        rows: Features of the usable rows.
        rates: Mean learning rate of the epoch before each checkpoint of `less`; None where nothing needs it.
        target: What rows are compared with; None without one.
        known: Further figures of the usable rows, by name, each of shape (m,).
        should_stop: Asked now and then.
    """

    spec: SelectionSpec
    places: NDArray[np.int64]
    sketches: NDArray[np.float32]
    values: NDArray[np.float32]
    loss: NDArray[np.float64]
    ifd: NDArray[np.float64]
    response_tokens: NDArray[np.int64]
    rows: RowFeatures
    rates: NDArray[np.float64] | None
    target: TargetRows | None
    known: Mapping[str, NDArray[np.float64]]
    should_stop: Callable[[], bool]

    def select(
        self,
        method: Method,
        config: SelectionConfig,
        constraints: Constraints | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Selection:
        """Pick by a method of `ORDERED_METHODS`; what it picks is measured like any other selection.

        Args:
            method: Which.
            config: Budget, seed, device, and the objective that the picks are measured by.
            constraints: What the picks have to keep to.
            on_progress: As for `workers.selection.select`.
        """
        measured = replace(config, method="fisher", early_stop_ratio=None, curvature=False)
        closed = 0 if constraints is None else len(constraints.exclude)
        most = len(self.places) - closed
        count = most if config.budget is None else min(config.budget, most)
        while True:
            order = self._order(method, count, config, constraints, on_progress)
            ended = method not in WEIGHING_METHODS or not 0 < len(order) == count < most
            try:
                found = select_in_order(
                    self.values, order, measured, constraints, on_progress=on_progress, should_stop=self.should_stop
                )
            except ConstraintError:
                if ended:
                    raise
            else:
                if ended or len(found.indices) == config.budget:
                    break
            count = min(2 * count, most)  # constraints let too few of these rows in: the next in order are looked at
        if method not in WEIGHING_METHODS or not len(found.indices):
            return found
        return replace(found, weights=self._weights(method, found.indices, config))

    @cached_property
    def figures(self) -> dict[str, NDArray[np.float64]]:
        """Figures of the m usable rows, each of shape (m,): those known, and those that the methods rank by."""
        wanted, found = {self.spec.method, *self.spec.baselines}, dict(self.known)
        if "selectit" in wanted:
            found["rating"] = ratings(self.rows.all("rating"))
        if "less" in wanted and self.rates is not None:
            cosines = self.rows.cosines(self._of_target("influence"))
            found["influence"] = influences(cosines, self.rates, self._target.groups)
        if wanted & {"rds_plus", "tsds"}:
            found["similarity"] = self._similarities.max(axis=1).astype(np.float64)
        return found

    def _order(
        self,
        method: Method,
        count: int,
        config: SelectionConfig,
        constraints: Constraints | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> NDArray[np.int64]:
        """Places among the candidates in the order of picking: of `WEIGHING_METHODS` `count` at most, else all."""
        places, loss = self.places, self.loss
        exclude = None if constraints is None else constraints.exclude
        orders: dict[Method, Callable[[], NDArray[np.int64]]] = {
            "length": lambda: by_score(self.response_tokens.astype(np.float64)),
            "perplexity": lambda: by_score(loss) if self.spec.perplexity == "top" else middle_third(loss, config.seed),
            "ifd": lambda: helped_by_prompt(self.ifd),
            "selectit": lambda: by_score(self.figures["rating"][places]),
            "less": lambda: by_score(self.figures["influence"][places]),
            "rds_plus": lambda: by_turns(self._similarities[places], self._target.groups),
            "tsds": lambda: transport(self._embeddings[places], self._of_target("embedding"), config.seed),
            "grad_match": lambda: (
                matching_pursuit(
                    self.sketches,
                    None if self.target is None else self.target.goal,
                    count,
                    exclude=exclude,
                    device=config.device,
                    on_progress=on_progress,
                    should_stop=self.should_stop,
                ).rows
            ),
            "facility_location": lambda: facility_location(
                self.sketches,
                count,
                exclude=exclude,
                device=config.device,
                on_progress=on_progress,
                should_stop=self.should_stop,
            ),
        }
        return orders[method]()

    def _weights(self, method: Method, picks: NDArray[np.int64], config: SelectionConfig) -> NDArray[np.float64]:
        """The weight of each pick, 0 where the others do without it; shape (k,)."""
        values = self.sketches
        if method == "facility_location":
            owners = nearest_picks(values, picks, device=config.device, should_stop=self.should_stop)
            return np.bincount(owners, minlength=len(picks)).astype(np.float64)
        goal = values.sum(axis=0, dtype=np.float64) if self.target is None else self.target.goal
        matched = matching_pursuit(values[picks], goal, len(picks), device=config.device, should_stop=self.should_stop)
        weights = np.zeros(len(picks))
        weights[matched.rows] = matched.weights
        return weights

    @property
    def _target(self) -> TargetRows:
        assert self.target is not None  # noqa: S101 - the request is refused without one
        return self.target

    def _of_target(self, feature: Feature) -> NDArray[np.float32]:
        return self._target.features[feature]

    @cached_property
    def _embeddings(self) -> NDArray[np.float32]:
        return self.rows.all("embedding")

    @cached_property
    def _similarities(self) -> NDArray[np.float32]:
        """Cosine of each usable row's embedding with that of each target row, (m, q)."""
        return self._embeddings @ self._of_target("embedding").T
