"""Batched per-sample gradients are those of autograd, one sample at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest
import torch
from autograd_reference import (
    adapter_gradients,
    lora_gradients,
    relative_error,
    sample_loss,
    weight_gradients,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import awkward_samples, made_up_samples, random_adapter, tiny_model

from workers.gradients.config import GradientConfig
from workers.gradients.countsketch import CountSketch
from workers.gradients.engine import GradientEngine
from workers.gradients.starting_point import StartingPoint, starting_point

if TYPE_CHECKING:
    from workers.data.samples import Sample

TOLERANCE = 1e-4
PLAIN = ("llama", "llama_tied", "qwen2")
SPECIAL_HEADS = ("gemma2", "cohere", "granite")


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([layer.flatten(1) for layer in gradients.values()], dim=1)


@pytest.mark.parametrize("architecture", PLAIN + SPECIAL_HEADS)
def test_lora_gradients_of_a_padded_batch_equal_autograd(architecture: str) -> None:
    model, samples = tiny_model(architecture), made_up_samples(12)
    config = GradientConfig(rank=4, token_budget=120, seed=3)
    found = GradientEngine(model, config).gradients(samples)
    assert len(found) == 14
    expected = lora_gradients(model.model, samples, list(found), rank=4, seed=3)
    for name in expected:
        assert relative_error(found[name], expected[name]) < TOLERANCE, name
    assert relative_error(flat(found), flat(expected)) < TOLERANCE


@pytest.mark.parametrize("architecture", ["llama_tied", "qwen2"])
def test_linear_gradients_equal_autograd(architecture: str) -> None:
    model, samples = tiny_model(architecture), made_up_samples(8)
    found = GradientEngine(model, GradientConfig(target="linear", token_budget=100)).gradients(samples)
    expected = weight_gradients(model.model, samples, list(found))
    assert relative_error(flat(found), flat(expected)) < TOLERANCE


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "cohere"])
def test_the_output_heads_gradient_equals_autograd(architecture: str) -> None:
    model, samples = tiny_model(architecture), made_up_samples(8)
    # Untie, so that autograd's gradient of the weight is the head's alone.
    head = model.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    found = GradientEngine(model, GradientConfig(target="last_layer", token_budget=100)).gradients(samples)
    assert list(found) == ["lm_head"]
    expected = weight_gradients(model.model, samples, ["lm_head"])
    assert relative_error(found["lm_head"], expected["lm_head"]) < TOLERANCE


def test_chosen_layers_only_and_token_mean() -> None:
    model, samples = tiny_model("qwen2"), made_up_samples(8)
    config = GradientConfig(layers=("o_proj", "v_proj"), loss_normalization="mean", rank=2)
    found = GradientEngine(model, config).gradients(samples)
    assert {name.rpartition(".")[2] for name in found} == {"o_proj", "v_proj"}
    expected = lora_gradients(model.model, samples, list(found), rank=2, seed=0, normalization="mean")
    assert relative_error(flat(found), flat(expected)) < TOLERANCE


@pytest.mark.parametrize("architecture", ["llama_tied", "qwen2", "gemma2"])
def test_gradients_of_a_given_adapter_equal_autograd(architecture: str) -> None:
    """Both of A and of B, with the adapter in the forward pass."""
    model, samples = tiny_model(architecture), made_up_samples(10)
    adapter = random_adapter(model.model)
    config = GradientConfig(adapter="a", token_budget=120)
    found = GradientEngine(model, config, StartingPoint(adapter)).gradients(samples)
    expected = adapter_gradients(model.model, samples, adapter)
    assert set(found) == set(expected)
    assert len(found) == 28
    for name in expected:
        assert relative_error(found[name], expected[name]) < TOLERANCE, name
    assert relative_error(flat(found), flat({name: expected[name] for name in found})) < TOLERANCE


def test_an_adapter_on_some_layers_with_gradients_of_fewer() -> None:
    """The rest of the adapter stays in the forward pass."""
    model, samples = tiny_model("llama"), made_up_samples(8)
    adapter = random_adapter(model.model, ["q_proj", "down_proj", "0.self_attn.o_proj"])
    config = GradientConfig(adapter="a", layers=("1.mlp.down_proj", "o_proj"))
    found = GradientEngine(model, config, StartingPoint(adapter)).gradients(samples)
    assert {name.removeprefix("model.layers.") for name in found} == {
        f"{layer}.lora_{part}" for layer in ("0.self_attn.o_proj", "1.mlp.down_proj") for part in "AB"
    }
    expected = adapter_gradients(model.model, samples, adapter)
    assert relative_error(flat(found), flat({name: expected[name] for name in found})) < TOLERANCE


@pytest.mark.parametrize("layers", [("q_proj", "1.mlp.up_proj"), ("layers.1.*", "0.mlp.[gu]*"), ("*.v_proj",)])
def test_linear_gradients_of_chosen_layers_equal_autograd(layers: tuple[str, ...]) -> None:
    model, samples = tiny_model("llama"), made_up_samples(6)
    found = GradientEngine(model, GradientConfig(target="linear", layers=layers)).gradients(samples)
    assert len(found) == {"q_proj": 3, "layers.1.*": 9, "*.v_proj": 2}[layers[0]]
    expected = weight_gradients(model.model, samples, list(found))
    assert relative_error(flat(found), flat(expected)) < TOLERANCE


ANY = {
    "fresh": GradientConfig(rank=3),
    "adapter": GradientConfig(adapter="a"),
    "linear": GradientConfig(target="linear"),
    "last_layer": GradientConfig(target="last_layer"),
}


@given(
    samples=awkward_samples(),
    architecture=st.sampled_from(PLAIN + SPECIAL_HEADS),
    target=st.sampled_from(sorted(ANY)),
    normalization=st.sampled_from(["sum", "mean"]),
    budget=st.sampled_from([1, 40, 130, 10_000]),
)
@settings(deadline=None, max_examples=30)
def test_whatever_is_asked_of_whatever_model_equals_autograd(
    samples: list[Sample], architecture: str, target: str, normalization: Literal["sum", "mean"], budget: int
) -> None:
    model = tiny_model(architecture)
    if target == "last_layer":  # untied, so that autograd's gradient of the weight is the head's alone
        head = model.model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    config = replace(ANY[target], loss_normalization=normalization, token_budget=budget)
    given_adapter = random_adapter(model.model) if target == "adapter" else None
    found = GradientEngine(model, config, StartingPoint(given_adapter)).gradients(samples)
    if given_adapter is not None:
        expected = adapter_gradients(model.model, samples, given_adapter, normalization)
    elif target == "fresh":
        expected = lora_gradients(model.model, samples, list(found), rank=3, seed=0, normalization=normalization)
    else:
        expected = weight_gradients(model.model, samples, list(found), normalization)
    assert set(found) == set(expected)
    assert relative_error(flat(found), flat({name: expected[name] for name in found})) < TOLERANCE


PRECONDITIONED = {
    "fresh": GradientConfig(rank=4, preconditioner="adam"),
    "adapter": GradientConfig(adapter="a", preconditioner="adam"),
    "linear": GradientConfig(target="linear", layers=("v_proj", "down_proj"), preconditioner="adam"),
    "last_layer": GradientConfig(target="last_layer", preconditioner="adam"),
}


@pytest.mark.parametrize("name", PRECONDITIONED)
def test_preconditioned_gradients_are_autograds_divided_by_their_root_mean_square(name: str) -> None:
    model, config, samples = tiny_model("qwen2"), PRECONDITIONED[name], made_up_samples(12)
    given = random_adapter(model.model) if config.adapter else None
    start = starting_point(model, config, samples, given)
    found = GradientEngine(model, config, start).gradients(samples)
    if given is not None:
        exact = adapter_gradients(model.model, samples, given)
    elif config.target == "lora":
        exact = lora_gradients(model.model, samples, list(found), rank=4, seed=0)
    else:
        exact = weight_gradients(model.model, samples, list(found))
    expected = {}
    for part in found:
        moment = exact[part].square().mean(0)
        expected[part] = exact[part] / (moment.sqrt() + 1e-3 * moment.mean().sqrt())
    # Where a root is small the quotient carries the rounding of its numerator: of order 1 / damping at the worst.
    assert relative_error(flat(found), flat(expected)) < TOLERANCE


@pytest.mark.parametrize(
    "config",
    [
        GradientConfig(rank=4, sketch_dim=64),
        GradientConfig(rank=4, sketch_dim=4096),
        GradientConfig(rank=4, sketch_dim=64, sketch="factorised"),
        GradientConfig(target="linear", sketch_dim=64, sketch="sparse"),
        GradientConfig(target="linear", sketch_dim=64, sketch="factorised"),
        GradientConfig(target="last_layer", sketch_dim=64, sketch="sparse"),
        GradientConfig(target="last_layer", sketch_dim=64, sketch="factorised"),
        GradientConfig(adapter="a", sketch_dim=64, sketch="sparse"),
        GradientConfig(adapter="a", sketch_dim=64, sketch="factorised"),
        GradientConfig(adapter="a", sketch_dim=64, preconditioner="adam"),
        GradientConfig(target="linear", sketch_dim=64, preconditioner="adam"),
        GradientConfig(rank=2, sketch_dim=64, warmup_steps=2, preconditioner="adam"),
    ],
    ids=lambda config: "-".join(
        [config.target, config.kind, str(config.sketch_dim), config.adapter or "fresh", config.preconditioner]
    ),
)
def test_a_sketch_is_the_projection_of_the_gradient(config: GradientConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.gradients.sketch.FACTOR_SIDE", 8)
    model, samples = tiny_model("llama"), made_up_samples(9)
    given = random_adapter(model.model) if config.adapter else None
    engine = GradientEngine(model, config, starting_point(model, config, samples, given))
    whole = engine.gradients(samples)
    assert set(whole) == set(engine._sketches)
    projected = torch.zeros(len(samples), config.sketch_dim)
    for part, gradient in whole.items():
        layer, folded = engine._sketches[part], gradient
        if isinstance(layer.fold.input_map, CountSketch):
            folded = layer.fold.input_map(folded)
        if isinstance(layer.fold.output_map, CountSketch):
            folded = layer.fold.output_map(folded.transpose(1, 2)).transpose(1, 2)
        projected += layer.flatten(folded.flatten(1))
    assert relative_error(torch.from_numpy(engine.sketch(samples).values), projected) < TOLERANCE


def test_the_losses_are_those_of_the_model() -> None:
    model, samples = tiny_model("llama"), made_up_samples(6)
    for normalization in ("sum", "mean"):
        config = GradientConfig(sketch_dim=16, loss_normalization=normalization)
        losses = GradientEngine(model, config).sketch(samples).losses
        expected = [float(sample_loss(model.model, sample, normalization)) for sample in samples]
        assert losses.tolist() == pytest.approx(expected, rel=TOLERANCE)
