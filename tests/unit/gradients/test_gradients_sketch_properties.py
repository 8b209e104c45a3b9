"""What a sketch promises: inner products and norms preserved in expectation, whatever the machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.gradients import sketch as sketch_module
from workers.gradients.config import GradientConfig
from workers.gradients.countsketch import CountSketch
from workers.gradients.sketch import LayerSketch, layer_folds, layer_sketch
from workers.models.layers import LinearMap
from workers.selection.seeds import random_permutation, random_signs, random_words

CPU = torch.device("cpu")
DRAWS = 600


def sketch_of(layer: str, weight: torch.Tensor, config: GradientConfig) -> LayerSketch:
    outputs, inputs = weight.shape
    linear = LinearMap(torch.nn.Linear(inputs, outputs, bias=False), outputs, inputs)
    ((part, fold),) = layer_folds(layer, linear, config, sketched=True).items()
    return layer_sketch(part, fold, config, CPU)


def count_sketch(inputs: int, outputs: int, seed: int) -> CountSketch:
    return CountSketch.of(inputs, outputs, seed=seed, role="test", layer="layer", device=CPU)


@given(inputs=st.integers(1, 300), outputs=st.integers(1, 64), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=60, deadline=None)
def test_every_entry_has_one_bucket_and_the_buckets_are_level(inputs: int, outputs: int, seed: int) -> None:
    matrix = count_sketch(inputs, outputs, seed)(torch.eye(inputs))
    assert torch.equal(matrix.abs().sum(1), torch.ones(inputs))
    assert matrix.abs().sum(0).max() <= -(-inputs // outputs)


def estimates(draw: object, truth: float) -> float:
    """How many standard errors (rounding at the least) the mean of the draws lies away from the truth."""
    values = np.asarray(draw)
    return float(abs(values.mean() - truth) / (values.std() / np.sqrt(values.size) + 1e-5 * abs(truth)))


@pytest.mark.parametrize(("inputs", "outputs"), [(200, 16), (37, 16), (5, 16)])
def test_count_sketch_is_unbiased_with_the_promised_variance(inputs: int, outputs: int) -> None:
    torch.manual_seed(1)
    g, h = torch.randn(2, inputs)
    g[0] = h[1] = 20.0  # outliers, the hard case
    pairs = [count_sketch(inputs, outputs, seed)(torch.stack([g, h])) for seed in range(DRAWS)]
    assert estimates([float(z @ w) for z, w in pairs], float(g @ h)) < 4.0
    norms = np.array([float(z @ z) for z, _ in pairs])
    assert estimates(norms, float(g @ g)) < 4.0
    assert norms.var() <= 1.3 * 2 * float(g @ g) ** 2 / outputs


@pytest.mark.parametrize("target", ["lora", "linear"])
@pytest.mark.parametrize("kind", ["sparse", "factorised"])
def test_layer_sketches_are_unbiased_for_the_full_gradient(
    target: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for LoRA: a fresh adapter is itself an unbiased projection of the full gradient."""
    monkeypatch.setattr(sketch_module, "FACTOR_SIDE", 8)
    torch.manual_seed(2)
    x, delta = torch.randn(2, 5, 30), torch.randn(2, 5, 20)
    x[:, :, 3] *= 10
    full = torch.bmm(delta.transpose(1, 2), x).flatten(1)
    weight, draws = torch.empty(20, 30), []
    for seed in range(DRAWS):
        config = GradientConfig(target=target, sketch=kind, rank=4, sketch_dim=64, seed=seed)  # type: ignore[arg-type]
        layer = sketch_of("layer", weight, config)
        draws.append(layer(layer.fold.inputs(x), layer.fold.outputs(delta)))
    grams = torch.stack([z @ z.T for z in draws])
    truth = full @ full.T
    for i, j in ((0, 0), (0, 1), (1, 1)):
        assert estimates(grams[:, i, j].numpy(), float(truth[i, j])) < 4.0


def test_layers_draw_their_own_signs() -> None:
    config = GradientConfig(sketch_dim=64)
    first, second = (sketch_of(name, torch.empty(20, 30), config) for name in ("a", "b"))
    assert not torch.equal(first.flatten.sign, second.flatten.sign)
    assert not torch.equal(first.fold.input_map, second.fold.input_map)  # type: ignore[arg-type]


def test_large_batches_are_folded_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = sketch_of("layer", torch.empty(20, 30), GradientConfig(target="linear", sketch="sparse", sketch_dim=16))
    x, delta = torch.randn(7, 5, 30), torch.randn(7, 5, 20)
    whole = layer(x, delta)
    monkeypatch.setattr(sketch_module, "GRADIENTS_AT_ONCE", 2 * 600)
    torch.testing.assert_close(layer(x, delta), whole)


def test_random_choices_are_fixed_for_good() -> None:
    """A change here changes every sketch: bump SKETCH_VERSION with it."""
    assert random_words(2, seed=0, role="r", layer="l").tolist() == WORDS
    assert random_signs(8, seed=7, role="r", layer="l").tolist() == SIGNS
    assert random_permutation(8, seed=7, role="r", layer="l").tolist() == PERMUTATION


WORDS = [16817721576019382349, 2977157340259439181]
SIGNS = [1, 1, -1, -1, 1, 1, -1, -1]
PERMUTATION = [0, 4, 2, 5, 3, 7, 1, 6]
