"""A sample's sketch depends on the sample, the model and the seed: not on batch, order or neighbours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import VOCABULARY, awkward_samples, made_up_samples, random_adapter, tiny_model

from workers.data.samples import Sample
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.gradients.passes import BatchDone
from workers.gradients.starting_point import StartingPoint, starting_point

if TYPE_CHECKING:
    import random

    from workers.models.proxy import ProxyModel

ROUNDING = 1e-5
BFLOAT16_ROUNDING = 1e-3


def row_error(found: np.ndarray, expected: np.ndarray) -> float:
    lengths = np.linalg.norm(expected, axis=1)
    return float((np.linalg.norm(found - expected, axis=1) / np.maximum(lengths, 1e-3 * lengths.max())).max())


CONFIGS = [
    GradientConfig(rank=4, sketch_dim=128),
    GradientConfig(target="linear", sketch_dim=128),
    GradientConfig(target="last_layer", sketch_dim=128),
    GradientConfig(adapter="a", sketch_dim=128),
    GradientConfig(rank=4, sketch_dim=128, warmup_steps=2, preconditioner="adam"),
]


def name_of(config: GradientConfig) -> str:
    return f"{config.target}-{config.adapter or 'fresh'}-{config.preconditioner}"


def start_of(model: ProxyModel, config: GradientConfig) -> StartingPoint:
    """Of samples that are not those to be scored."""
    given = random_adapter(model.model) if config.adapter else None
    return starting_point(model, config, made_up_samples(16, seed=5), given)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
@pytest.mark.parametrize("architecture", ["llama_tied", "qwen2", "gemma2"])
def test_budget_order_and_neighbours_change_nothing(architecture: str, config: GradientConfig) -> None:
    model, samples = tiny_model(architecture), made_up_samples(20)
    start = start_of(model, config)
    together = GradientEngine(model, replace(config, token_budget=10_000), start).sketch(samples).values
    small = GradientEngine(model, replace(config, token_budget=60), start).sketch(samples).values
    engine = GradientEngine(model, config, start)
    backwards = engine.sketch(samples[::-1]).values[::-1]
    alone = np.concatenate([engine.sketch([sample]).values for sample in samples])
    for other in (small, backwards, alone):
        assert row_error(other, together) < ROUNDING


@given(
    samples=awkward_samples(),
    config=st.sampled_from([*CONFIGS[:4], replace(CONFIGS[0], loss_normalization="mean")]),
    architecture=st.sampled_from(["llama_tied", "qwen2", "gemma2"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    budget=st.integers(1, 1200),
    order=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=25)
def test_no_company_makes_a_sample_another(
    samples: list[Sample],
    config: GradientConfig,
    architecture: str,
    dtype: torch.dtype,
    budget: int,
    order: random.Random,
) -> None:
    """Against each sample alone: any neighbours, order, budget and dtype."""
    model = tiny_model(architecture)
    start = StartingPoint(random_adapter(model.model) if config.adapter else None)
    model.model.to(dtype)
    engine = GradientEngine(model, config, start)
    alone = np.concatenate([engine.sketch([sample]).values for sample in samples])
    places = list(range(len(samples)))
    order.shuffle(places)
    engine = GradientEngine(model, replace(config, token_budget=budget), start)
    together = engine.sketch([samples[place] for place in places]).values
    assert row_error(together, alone[places]) < (ROUNDING if dtype == torch.float32 else BFLOAT16_ROUNDING)


def test_one_run_is_the_next_runs_to_the_bit() -> None:
    model, samples = tiny_model("llama"), made_up_samples(10)
    first = GradientEngine(model, GradientConfig(sketch_dim=64)).sketch(samples).values
    again = GradientEngine(tiny_model("llama"), GradientConfig(sketch_dim=64)).sketch(samples).values
    assert np.array_equal(first, again)


def outlier(row: int) -> Sample:
    """A long repetitive sample whose gradient is far larger than that of the others."""
    ids = np.tile(np.array([5, 90], dtype=np.int32), 40)
    return Sample(row=row, input_ids=ids, loss_mask=np.arange(80) > 0)


def test_an_outlier_stays_in_its_row() -> None:
    """Sketches that an outlier in the batch changed made the runs of another project irreproducible."""
    model, quiet = tiny_model("llama"), made_up_samples(6)
    engine = GradientEngine(model, GradientConfig(sketch_dim=64, token_budget=10_000))
    without = engine.sketch(quiet)
    with_outlier = engine.sketch([*quiet[:3], outlier(6), *quiet[3:]])
    others = [0, 1, 2, 4, 5, 6]
    assert np.linalg.norm(with_outlier.values[3]) > 3 * np.linalg.norm(without.values, axis=1).max()
    assert row_error(with_outlier.values[others], without.values) < ROUNDING


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_a_gradient_that_is_not_finite_is_flagged_in_its_row_alone(config: GradientConfig) -> None:
    model, samples = tiny_model("llama"), made_up_samples(6)
    poison = VOCABULARY - 1
    clean = [
        Sample(sample.row, np.where(sample.input_ids == poison, 3, sample.input_ids), sample.loss_mask)
        for sample in samples
    ]
    start = start_of(model, config)
    with torch.no_grad():
        model.model.get_input_embeddings().weight[poison] = float("nan")
    sick = Sample(6, np.array([4, poison, 7, 8], dtype=np.int32), np.array([False, True, True, True]))
    engine = GradientEngine(model, replace(config, token_budget=10_000), start)
    alone = engine.sketch(clean)
    mixed = engine.sketch([*clean[:2], sick, *clean[2:]])
    assert mixed.finite.tolist() == [True, True, False, True, True, True, True]
    assert not np.isfinite(mixed.values[2]).all()
    assert row_error(np.delete(mixed.values, 2, axis=0), alone.values) < ROUNDING


def test_what_follows_the_last_label_changes_nothing() -> None:
    engine = GradientEngine(tiny_model("llama"), GradientConfig(sketch_dim=64))
    ids = np.arange(3, 15, dtype=np.int32)
    mask = np.zeros(12, dtype=np.bool_)
    mask[4:8] = True
    whole = engine.sketch([Sample(0, ids, mask)]).values
    cut = engine.sketch([Sample(0, ids[:8], mask[:8])]).values
    assert row_error(whole, cut) < ROUNDING


def test_dropout_is_off() -> None:
    model = tiny_model("llama")
    model.model.config.attention_dropout = 0.5
    for module in model.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    samples = made_up_samples(4)
    engine = GradientEngine(model, GradientConfig(sketch_dim=32))
    assert np.array_equal(engine.sketch(samples).values, engine.sketch(samples).values)


def test_bfloat16_is_close_to_float32() -> None:
    model, samples = tiny_model("llama"), made_up_samples(10)
    exact = GradientEngine(model, GradientConfig(sketch_dim=256)).sketch(samples).values
    model.model.to(torch.bfloat16)
    rounded = GradientEngine(model, GradientConfig(sketch_dim=256)).sketch(samples).values
    cosines = (exact * rounded).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    assert cosines.min() > 0.9


@pytest.mark.parametrize("config", CONFIGS[:3], ids=name_of)
def test_in_bfloat16_too_neighbours_change_nothing_beyond_rounding(config: GradientConfig) -> None:
    """Without lengths in steps it is percents: other kernels sum in another order, and a last bit is 0.4%."""
    model, samples = tiny_model("llama"), made_up_samples(16, longest=100)
    model.model.to(torch.bfloat16)
    engine = GradientEngine(model, replace(config, token_budget=1000))
    together = engine.sketch(samples).values
    alone = np.concatenate([engine.sketch([sample]).values for sample in samples])
    assert row_error(engine.sketch(samples[::-1]).values[::-1], together) < BFLOAT16_ROUNDING
    assert row_error(alone, together) < BFLOAT16_ROUNDING


def test_in_bfloat16_lengths_come_in_steps_within_the_budget_and_the_model() -> None:
    model, samples, seen = tiny_model("llama"), made_up_samples(16, longest=120), list[BatchDone]()
    model.model.to(torch.bfloat16)
    GradientEngine(model, replace(CONFIGS[0], token_budget=256)).sketch(samples, on_batch=seen.append)
    assert all(done.positions <= 256 and done.positions % 32 == 0 for done in seen)
    model.model.config.max_position_embeddings = 120
    seen.clear()
    GradientEngine(model, replace(CONFIGS[0], token_budget=1)).sketch(samples, on_batch=seen.append)
    assert max(done.positions for done in seen) <= 120
