"""Warm-up trains as a fine-tuning does; what it leaves is the same for every worker, and is stored once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from autograd_reference import adapter_gradients, relative_error, sample_loss, weight_gradients, with_adapter
from tiny_networks import VOCABULARY, made_up_samples, random_adapter, tiny_model

from app.core.storage.local import LocalArtifacts
from workers.data.samples import Sample
from workers.data.stopping import Stopped
from workers.gradients import starting_point as starting_point_module
from workers.gradients import warmup
from workers.gradients.adapter import Adapter, LowRank
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.gradients.passes import Passes
from workers.gradients.second_moments import damped_roots
from workers.gradients.sketch import adapter_signs
from workers.gradients.starting_point import FRESH, StartingPoint, shared_starting_point, starting_point
from workers.gradients.targets import target_layers
from workers.models.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from workers.models.proxy import ProxyModel

KEY = "cd" * 32
CONFIG = GradientConfig(rank=3, warmup_steps=4, warmup_learning_rate=1e-2, sketch_dim=64)


def share_blocks(model: ProxyModel) -> None:
    """Have the second block be the first once more."""
    layers = model.model.get_submodule("model.layers")
    layers[1] = layers[0]  # type: ignore[index, operator]


def trained(model: ProxyModel, config: GradientConfig, samples: list[Sample]) -> Adapter:
    adapter = starting_point(model, config, samples).adapter
    assert adapter is not None
    return adapter


def test_warm_up_is_adam_over_real_lora_modules() -> None:
    """The same steps by torch.optim.Adam, autograd over the whole model, one padded row at a time."""
    model, samples = tiny_model("llama"), made_up_samples(20)
    found = trained(model, CONFIG, samples)

    fresh = Adapter(
        {
            name: LowRank(
                adapter_signs(name, layer.in_features, 3, 0).float() / (3 * layer.in_features) ** 0.5,
                torch.zeros(layer.out_features, 3),
                scale=2.0,
            )
            for name, layer in target_layers(model.model, CONFIG).items()
        }
    )
    network, modules = with_adapter(model.model, fresh)
    parameters = [parameter for module in modules.values() for parameter in (module.down, module.up)]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    order = warmup.random_permutation(20, seed=0, role="warmup/rows", layer="")
    for step in range(4):
        rows = [samples[int(order[(8 * step + place) % 20])] for place in range(8)]
        optimizer.zero_grad()
        loss = torch.stack([sample_loss(network, row) for row in rows]).sum()
        (loss / sum(row.loss_tokens for row in rows)).backward()
        optimizer.step()
    for name, module in modules.items():
        for mine, theirs in ((found.layers[name].down, module.down), (found.layers[name].up, module.up)):
            # An entry whose gradient is rounding alone moves by as much as any other: Adam divides by its size.
            assert float((mine - theirs.detach()).norm() / theirs.detach().norm()) < 1e-2, name


def test_training_with_weight_decay_is_adamw_and_goes_on_where_it_was() -> None:
    """Three steps by torch.optim.AdamW over the same gradients; the third by another training that takes it up."""
    model, samples = tiny_model("llama"), made_up_samples(12)
    passes = Passes(model.model, replace(CONFIG, loss_normalization="sum"))
    training = warmup.Training(passes, CONFIG, weight_decay=0.5)
    network, modules = with_adapter(model.model, training.adapter())
    parameters = [parameter for module in modules.values() for parameter in (module.down, module.up)]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.5)
    for step in range(3):
        if step == 2:
            before, training = training, warmup.Training(passes, CONFIG, weight_decay=0.5)
            training.go_on(before.adapter(), *before.moments(), before.steps)
        rows = samples[4 * step : 4 * step + 4]
        optimizer.zero_grad()
        loss = torch.stack([sample_loss(network, row) for row in rows]).sum() / sum(row.loss_tokens for row in rows)
        loss.backward()
        optimizer.step()
        assert training.step(rows, 1e-2) == pytest.approx(float(loss.detach()), rel=1e-4)
    for name, module in modules.items():
        mine = training.adapter().layers[name]
        for found, theirs in ((mine.down, module.down), (mine.up, module.up)):
            assert float((found - theirs.detach()).norm() / theirs.detach().norm()) < 1e-2, name


def test_after_warm_up_a_and_b_both_have_gradients() -> None:
    model, samples = tiny_model("qwen2"), made_up_samples(10)
    start = starting_point(model, CONFIG, samples)
    assert start.adapter is not None
    found = GradientEngine(model, CONFIG, start).gradients(samples)
    expected = adapter_gradients(model.model, samples, start.adapter)
    assert found.keys() == expected.keys()
    for name in expected:
        assert expected[name].any()
        assert relative_error(found[name], expected[name]) < 1e-4, name


def test_warm_up_lowers_the_loss() -> None:
    model, samples = tiny_model("llama"), made_up_samples(8)
    config = replace(CONFIG, warmup_steps=20)
    before = GradientEngine(model, GradientConfig(sketch_dim=16)).sketch(samples).losses.sum()
    after = GradientEngine(model, config, starting_point(model, config, samples)).sketch(samples).losses.sum()
    assert after < 0.9 * before


def test_the_budget_changes_nothing_and_running_again_gives_the_same_bits() -> None:
    model, samples = tiny_model("llama"), made_up_samples(20)
    first, again = trained(model, CONFIG, samples), trained(tiny_model("llama"), CONFIG, samples)
    small = trained(model, replace(CONFIG, token_budget=30), samples)
    for name, low_rank in first.layers.items():
        assert torch.equal(low_rank.down, again.layers[name].down)
        assert torch.equal(low_rank.up, again.layers[name].up)
        assert float((low_rank.up - small.layers[name].up).norm() / low_rank.up.norm()) < 1e-2


@pytest.mark.parametrize("blocks", ["of their own", "shared"])
def test_second_moments_are_those_of_adam(blocks: str) -> None:
    model, samples = tiny_model("llama"), made_up_samples(8)
    if blocks == "shared":
        share_blocks(model)
    config = replace(CONFIG, warmup_steps=1, preconditioner="adam", token_budget=10_000)
    start = starting_point(model, config, samples)
    assert start.second_moments is not None
    fresh = {
        name: LowRank(
            adapter_signs(name, layer.in_features, 3, 0).float() / (3 * layer.in_features) ** 0.5,
            torch.zeros(layer.out_features, 3),
            scale=2.0,
        )
        for name, layer in target_layers(model.model, config).items()
    }
    labels = sum(sample.loss_tokens for sample in samples)
    gradients = adapter_gradients(model.model, samples, Adapter(fresh))
    for part, moment in start.second_moments.items():
        expected = (gradients[part].sum(0) / labels).square()
        torch.testing.assert_close(moment, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))


def test_a_layer_that_is_used_twice_has_one_gradient_and_no_moments_of_its_rows() -> None:
    """Hooks see each use; the gradient is their sum, whose square they do not tell."""
    model, samples = tiny_model("llama"), made_up_samples(8)
    share_blocks(model)
    config = GradientConfig(target="linear")
    found = GradientEngine(model, config).gradients(samples)
    expected = weight_gradients(model.model, samples, list(found))
    assert len(found) == 7
    for name in expected:
        assert relative_error(found[name], expected[name]) < 1e-4, name
    with pytest.raises(ModelError, match=r"gradients.preconditioner: the model uses model.layers.0.* more than once"):
        starting_point(model, replace(config, preconditioner="adam"), samples)


def test_an_entry_without_a_moment_is_damped_and_a_dead_layer_left_alone() -> None:
    moment = torch.tensor([[4.0, 0.0]])
    assert damped_roots(moment)[0].tolist() == pytest.approx([1 / (2 + 1e-3 * 2**0.5), 1 / (1e-3 * 2**0.5)])
    assert damped_roots(torch.zeros(2, 2)).tolist() == [[1.0, 1.0], [1.0, 1.0]]


POISON = VOCABULARY - 1
SICK = Sample(99, np.array([4, POISON, 7, 8], dtype=np.int32), np.array([False, True, True, True]))


def poisoned(count: int) -> tuple[ProxyModel, list[Sample]]:
    """A model with a token whose embedding is not a number, and samples without that token."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.get_input_embeddings().weight[POISON] = float("nan")
    clean = [
        Sample(sample.row, np.where(sample.input_ids == POISON, 3, sample.input_ids), sample.loss_mask)
        for sample in made_up_samples(count)
    ]
    return model, clean


def test_rows_that_are_not_finite_do_not_spoil_the_preparation() -> None:
    model, clean = poisoned(15)
    start = starting_point(model, replace(CONFIG, preconditioner="adam"), [*clean, SICK])
    assert start.adapter is not None
    assert start.second_moments is not None
    assert all(torch.isfinite(low_rank.up).all() for low_rank in start.adapter.layers.values())
    assert all(torch.isfinite(moment).all() for moment in start.second_moments.values())
    config = GradientConfig(rank=3, preconditioner="adam")
    with_sick = starting_point(model, config, [*clean, SICK]).second_moments
    without = starting_point(model, config, clean).second_moments
    assert with_sick is not None
    assert without is not None
    for part, moment in without.items():
        torch.testing.assert_close(with_sick[part], moment, rtol=1e-4, atol=1e-6 * float(moment.max()))


def test_nothing_finite_is_an_error_with_a_remedy() -> None:
    model, _ = poisoned(1)
    with pytest.raises(ModelError, match="none of 4 steps had a finite gradient: use float32"):
        starting_point(model, CONFIG, [SICK])
    with pytest.raises(ModelError, match=r"none of 1 rows has a finite gradient at .*: use float32"):
        starting_point(model, GradientConfig(preconditioner="adam"), [SICK])


def test_moments_of_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.gradients.second_moments.MOST_MOMENTS", 100)
    config = GradientConfig(target="linear", preconditioner="adam")
    with pytest.raises(ModelError, match=r"entries, and 100 are the most: choose fewer gradients.layers"):
        starting_point(tiny_model("llama"), config, made_up_samples(3))


def test_a_preparation_stops_when_it_is_told() -> None:
    for config in (CONFIG, GradientConfig(preconditioner="adam")):
        with pytest.raises(Stopped):
            starting_point(tiny_model("llama"), config, made_up_samples(9), should_stop=lambda: True)


def test_an_engine_refuses_a_starting_point_of_another_configuration() -> None:
    model = tiny_model("llama")
    given = StartingPoint(random_adapter(model.model))
    for config, start in ((CONFIG, FRESH), (GradientConfig(), given), (GradientConfig(preconditioner="adam"), FRESH)):
        with pytest.raises(ValueError, match="starting point is not that of the configuration"):
            GradientEngine(model, config, start)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, preconditioner="adam")], ids=["adapter", "both"])
def test_the_first_worker_decides_and_the_others_load_the_same_bits(tmp_path: Path, config: GradientConfig) -> None:
    store, model, samples = LocalArtifacts(tmp_path), tiny_model("llama"), made_up_samples(9)
    first = shared_starting_point(store, KEY, lambda: starting_point(model, config, samples))
    second = shared_starting_point(store, KEY, lambda: pytest.fail("computed twice"))
    assert first.adapter is not None
    assert second.adapter is not None
    for name, low_rank in first.adapter.layers.items():
        assert torch.equal(second.adapter.layers[name].up, low_rank.up)
        assert torch.equal(second.adapter.layers[name].down, low_rank.down)
        assert second.adapter.layers[name].scale == low_rank.scale
    assert (first.second_moments or {}).keys() == (second.second_moments or {}).keys()


@pytest.mark.parametrize("before", [None, b"damaged"])
def test_of_two_that_compute_at_once_one_decides(tmp_path: Path, before: bytes | None) -> None:
    store, model = LocalArtifacts(tmp_path), tiny_model("llama")
    if before is not None:
        store.write(f"sketches/{KEY}/start.safetensors", before)
    winner = starting_point(model, CONFIG, made_up_samples(9))

    def slower() -> StartingPoint:
        shared_starting_point(store, KEY, lambda: winner)
        return starting_point(model, replace(CONFIG, seed=1), made_up_samples(9))

    loaded = shared_starting_point(store, KEY, slower)
    assert loaded.adapter is not None
    assert winner.adapter is not None
    name = next(iter(winner.adapter.layers))
    assert torch.equal(loaded.adapter.layers[name].up, winner.adapter.layers[name].up)


def test_a_damaged_starting_point_is_made_again(tmp_path: Path) -> None:
    store, model = LocalArtifacts(tmp_path), tiny_model("llama")
    whole = shared_starting_point(store, KEY, lambda: starting_point(model, CONFIG, made_up_samples(9)))
    file = tmp_path / "sketches" / KEY / "start.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert starting_point_module._unpacked("ee" * 32, bytes(content)) is None
    made: list[int] = []

    def again() -> StartingPoint:
        made.append(1)
        return whole

    assert shared_starting_point(store, KEY, again).adapter is not None
    assert shared_starting_point(store, KEY, again).adapter is not None
    assert made == [1]


def test_the_loss_of_a_step_is_the_mean_over_its_tokens_whatever_is_scored_later() -> None:
    """Else a step's mean would weigh rows by their length."""
    model, samples = tiny_model("llama"), made_up_samples(6)
    mean = trained(model, replace(CONFIG, loss_normalization="mean"), samples)
    total = trained(model, CONFIG, samples)
    name = next(iter(total.layers))
    assert torch.equal(mean.layers[name].up, total.layers[name].up)
