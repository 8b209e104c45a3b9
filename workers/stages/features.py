"""What methods need of rows besides sketches: which, and how a worker with the model computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.gradients.features import FEATURES, embeddings, of_pool, rating_probabilities
from workers.gradients.less import checkpoints, directions, less_config, plain_gradients, shared_checkpoints
from workers.gradients.passes import stop_poll
from workers.stages.purposes import POOL, TARGET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from app.core.contracts.selection_request import Method, SelectionSpec
    from app.core.storage import ArtifactStore
    from workers.data.samples import Sample, Samples
    from workers.gradients.checkpoint import Checkpoint
    from workers.gradients.engine import GradientEngine
    from workers.gradients.features import Feature
    from workers.gradients.shards import ShardStore
    from workers.models.proxy import ProxyModel

NEEDED: Mapping[Method, Feature] = {
    "less": "influence",
    "rds_plus": "embedding",
    "tsds": "embedding",
    "selectit": "rating",
}
IN_TARGET: frozenset[Feature] = frozenset({"influence", "embedding"})


def needed(spec: SelectionSpec, role: str, pool: str) -> list[str]:
    """What the method and the baselines of a request need of a dataset, each once, in a fixed order.

    Args:
        spec: The request's.
        role: Of the dataset in the selection.
        pool: What `ShardStore.dataset` calls the job's own dataset.
    """
    if role == POOL:
        return [name_in_pool(feature, pool) for feature in _features(spec)]
    return [name_in_target(feature, pool) for feature in in_target(spec)] if role == TARGET else []


def in_target(spec: SelectionSpec) -> list[Feature]:
    """The features by which rows are compared with target rows."""
    return [feature for feature in _features(spec) if feature in IN_TARGET]


def _features(spec: SelectionSpec) -> list[Feature]:
    wanted = {NEEDED[method] for method in (spec.method, *spec.baselines) if method in NEEDED}
    return [feature for feature in FEATURES if feature in wanted]


def name_in_pool(feature: Feature, pool: str) -> str:
    """Name in the store of a feature of the pool's rows."""
    return of_pool(feature, pool) if feature == "influence" else feature


def name_in_target(feature: Feature, pool: str) -> str:
    """Name of the feature of target rows that a feature of the pool's rows is compared with."""
    return of_pool("gradient", pool) if feature == "influence" else feature


class Features:
    """Computes them with a model that is loaded."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        model: ProxyModel,
        engine: GradientEngine,
        key: str,
        pool: str,
        samples: Callable[[], Samples],
        should_stop: Callable[[], bool],
    ) -> None:
        """Remember what they are computed with.

        Args:
            artifacts: Where sketches are.
            model: The model.
            engine: What sketches are made with.
            key: Content key of the sketches of the job's own dataset.
            pool: What `ShardStore.dataset` calls that.
            samples: Gives all samples of that dataset, where the warm-up of `less` is still to be trained.
            should_stop: Asked at most every half second.
        """
        self._artifacts, self._model, self._engine, self._key, self._pool = artifacts, model, engine, key, pool
        self._samples, self._should_stop = samples, should_stop
        self._less = less_config(engine.config)

    def keep(self, features: Sequence[str], store: ShardStore, shard: int, samples: Samples) -> None:
        """Keep features of those rows of a dataset's shard that have none."""
        for feature in features:
            places = store.wanted(shard, feature)
            if len(places):
                store.write_feature(feature, places, self.of(feature, [samples[int(place)] for place in places]))

    def of(self, feature: str, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """A feature of some samples, by its name in the store; the first dimension is theirs."""
        poll = stop_poll(self._should_stop)
        if feature == "embedding":
            return embeddings(self._engine, samples, poll)
        if feature == "rating":
            return rating_probabilities(self._engine, self._model.tokenizer, samples, poll)
        made = directions if feature == of_pool("influence", self._pool) else plain_gradients
        return made(self._model, self._less, self._checkpoints(), samples, self._should_stop)

    def _checkpoints(self) -> list[Checkpoint]:
        return shared_checkpoints(
            self._artifacts,
            self._key,
            self._pool,
            lambda: checkpoints(self._model, self._less, self._samples(), self._should_stop),
        )
