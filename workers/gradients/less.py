"""Gradients as LESS compares them: Adam's directions of rows and plain gradients of target rows, at four checkpoints.

The warm-up trains a fresh adapter for four epochs on 5% of the rows, at a learning rate that rises over the first 3% of
the steps and falls to 0; after each epoch a checkpoint is kept with Adam's moments. It is computed once for a content
key, as `workers.gradients.starting_point` has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from app.core.storage import sketches_prefix
from workers.gradients.checkpoint import Checkpoint, pack_checkpoints, unpack_checkpoints
from workers.gradients.engine import GradientEngine
from workers.gradients.passes import Passes, stop_poll
from workers.gradients.starting_point import AdamState, StartingPoint
from workers.gradients.warmup import Training
from workers.models.errors import ModelError
from workers.selection.seeds import random_permutation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from app.core.storage import ArtifactStore
    from workers.data.samples import Sample, Samples
    from workers.gradients.config import GradientConfig
    from workers.models.proxy import ProxyModel

EPOCHS = 4
SHARE = 0.05
LEARNING_RATE = 2e-5
RISING = 0.03
"""Share of the steps over which the learning rate rises."""
BATCH_ROWS = 128
FEWEST_STEPS = 4
"""Of an epoch: a small pool has smaller batches."""
VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The warm-up for a dataset.

    Attributes:
        samples: Rows that it trains on.
        batch: Rows of a step.
        rates: Learning rate of each step, shape (epochs, steps of an epoch).
    """

    samples: int
    batch: int
    rates: NDArray[np.float64]

    @classmethod
    def of(cls, samples: int) -> Self:
        """The warm-up for a dataset of so many samples."""
        chosen = max(1, math.ceil(SHARE * samples))
        batch = max(1, min(BATCH_ROWS, chosen // FEWEST_STEPS))
        steps = math.ceil(chosen / batch)
        return cls(chosen, batch, learning_rates(EPOCHS * steps).reshape(EPOCHS, steps))

    @property
    def of_epochs(self) -> NDArray[np.float64]:
        """Mean learning rate of each epoch, by which LESS weighs its checkpoint; shape (epochs,)."""
        found: NDArray[np.float64] = self.rates.mean(axis=1)
        return found


def less_config(config: GradientConfig) -> GradientConfig:
    """What LESS takes gradients of, where a job has this configuration: a fresh adapter, the mean loss of a row."""
    fresh = config.target == "lora" and config.adapter is None
    return replace(
        config,
        target="lora",
        rank=config.rank if fresh else 8,
        layers=config.layers if config.adapter is None else None,
        adapter=None,
        warmup_steps=1,  # the engine asks whether there was a warm-up, not how long
        preconditioner="adam",
        sketch="auto",
        loss_normalization="mean",
        prompt_effect=False,
    )


def learning_rates(steps: int) -> NDArray[np.float64]:
    """The learning rate of each step, shape (steps,): linear up, then linear down, as transformers has it."""
    rising = math.ceil(RISING * steps)
    step = np.arange(steps)
    up = step / max(1, rising)
    down = (steps - step) / max(1, steps - rising)
    return LEARNING_RATE * np.where(step < rising, up, down)


def checkpoints(
    model: ProxyModel, config: GradientConfig, samples: Samples, should_stop: Callable[[], bool] | None = None
) -> list[Checkpoint]:
    """Train the adapter and keep it after each epoch.

    Args:
        model: The proxy.
        config: What `less_config` gave.
        samples: All samples of the dataset; some are taken by their numbers.
        should_stop: Asked at most every half second.

    Raises:
        ModelError: No step of an epoch had a finite gradient.
        Stopped: `should_stop` said so.
    """
    order = random_permutation(len(samples), seed=config.seed, role="less/rows", layer="")
    plan = Plan.of(len(samples))
    chosen = order[: plan.samples]
    passes = Passes(model.model, replace(config, loss_normalization="sum"))
    training, found = Training(passes, config), []
    poll = stop_poll(should_stop)
    for epoch in range(EPOCHS):
        shuffled = random_permutation(len(chosen), seed=config.seed, role="less/epoch", layer=str(epoch))
        for step, rate in enumerate(plan.rates[epoch].tolist()):
            batch = chosen[shuffled[step * plan.batch : (step + 1) * plan.batch]]
            training.step([samples[int(row)] for row in batch], rate, poll)
        if not training.steps:
            raise ModelError("gradients: no step of the warm-up of less had a finite gradient: use float32")
        adam = AdamState(*training.moments(), training.steps)
        found.append(Checkpoint(training.adapter(), adam))
    return found


def shared_checkpoints(
    artifacts: ArtifactStore, key: str, dataset: str, make: Callable[[], list[Checkpoint]]
) -> list[Checkpoint]:
    """The checkpoints that are kept with a dataset's sketches, made and kept if there are none.

    Args:
        artifacts: Where the key's shards are.
        key: Content key of the sketches.
        dataset: What `ShardStore.dataset` calls the rows, some of which are trained on.
        make: Computes them.
    """
    name = f"{sketches_prefix(key)}less-{dataset}.safetensors"
    key = f"{key}/{dataset}"

    def stored() -> list[Checkpoint] | None:
        content = artifacts.read(name)
        file = None if content is None else unpack_checkpoints(content, _about(key))
        return None if file is None else list(file.checkpoints)

    found = stored()
    if found is not None:
        return found
    packed = pack_checkpoints(make(), _about(key))
    if artifacts.read(name) is not None and stored() is None:
        artifacts.remove(name)  # damaged
    artifacts.write_new(name, packed)
    return stored() or shared_checkpoints(artifacts, key.partition("/")[0], dataset, make)


def directions(
    model: ProxyModel,
    config: GradientConfig,
    given: Sequence[Checkpoint],
    samples: Sequence[Sample],
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.float32]:
    """Sketches of Adam's directions of some rows, as unit vectors; (n, checkpoints, p), float32.

    Args:
        model: The proxy.
        config: What `less_config` gave.
        given: The checkpoints.
        samples: The rows.
        should_stop: As for `GradientEngine.sketch`.
    """
    return _sketched(model, config, [StartingPoint(one.adapter, adam=one.adam) for one in given], samples, should_stop)


def plain_gradients(
    model: ProxyModel,
    config: GradientConfig,
    given: Sequence[Checkpoint],
    samples: Sequence[Sample],
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.float32]:
    """Sketches of the gradients of target rows, as unit vectors; arguments and shape as for `directions`."""
    plain = replace(config, preconditioner="none", sketch="sparse")
    return _sketched(model, plain, [StartingPoint(one.adapter) for one in given], samples, should_stop)


def _sketched(
    model: ProxyModel,
    config: GradientConfig,
    starts: Sequence[StartingPoint],
    samples: Sequence[Sample],
    should_stop: Callable[[], bool] | None,
) -> NDArray[np.float32]:
    found = np.empty((len(samples), len(starts), config.sketch_dim), dtype=np.float32)
    single = [replace(sample, rejected=None) for sample in samples]
    for place, start in enumerate(starts):
        values = GradientEngine(model, config, start).sketch(single, should_stop=should_stop).values
        lengths = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
        found[:, place] = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)
    return found


def _about(key: str) -> dict[str, str]:
    """What a file of checkpoints says that it is of."""
    return {"key": key, "version": str(VERSION)}
