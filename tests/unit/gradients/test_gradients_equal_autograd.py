"""Batched per-sample gradients are those of autograd, one sample at a time."""

from __future__ import annotations

import pytest
import torch
from autograd_reference import (
    lora_gradients,
    relative_error,
    sample_loss,
    weight_gradients,
)
from tiny_networks import made_up_samples, tiny_model

from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.gradients.sketch import layer_sketch

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
    config = GradientConfig(modules=("o_proj", "v_proj"), loss_normalization="mean", rank=2)
    found = GradientEngine(model, config).gradients(samples)
    assert {name.rpartition(".")[2] for name in found} == {"o_proj", "v_proj"}
    expected = lora_gradients(model.model, samples, list(found), rank=2, seed=0, normalization="mean")
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
    ],
    ids=lambda config: f"{config.target}-{config.kind}-{config.sketch_dim}",
)
def test_a_sketch_is_the_projection_of_the_gradient(config: GradientConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.gradients.sketch.FACTOR_SIDE", 8)
    model, samples = tiny_model("llama"), made_up_samples(9)
    engine = GradientEngine(model, config)
    whole = engine.gradients(samples)
    projected = torch.zeros(len(samples), config.sketch_dim)
    for name, gradient in whole.items():
        weight = model.model.get_submodule(name).weight
        layer = layer_sketch(name, weight, config)
        folded = gradient
        if layer.fold.fold_input is not None:
            folded = layer.fold.fold_input(folded)
        if layer.fold.fold_output is not None:
            folded = layer.fold.fold_output(folded.transpose(1, 2)).transpose(1, 2)
        projected += layer.flatten(folded.flatten(1))
    assert relative_error(torch.from_numpy(engine.sketch(samples).values), projected) < TOLERANCE


def test_the_losses_are_those_of_the_model() -> None:
    model, samples = tiny_model("llama"), made_up_samples(6)
    for normalization in ("sum", "mean"):
        config = GradientConfig(sketch_dim=16, loss_normalization=normalization)
        losses = GradientEngine(model, config).sketch(samples).losses
        expected = [float(sample_loss(model.model, sample, normalization)) for sample in samples]
        assert losses.tolist() == pytest.approx(expected, rel=TOLERANCE)
