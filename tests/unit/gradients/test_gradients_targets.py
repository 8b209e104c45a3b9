"""What gradients are taken of, what is left out by name, and what is refused: no layer counts as 0 without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from autograd_reference import relative_error, weight_gradients
from tiny_networks import SIZES, VOCABULARY, made_up_samples, tiny_model, tiny_network
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    FalconConfig,
    MambaConfig,
    MptConfig,
    OlmoConfig,
    OPTConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from workers.data.samples import Sample
from workers.gradients.batches import plan_batches
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.models.architecture import short_length
from workers.models.errors import ModelError
from workers.models.proxy import ProxyModel

LINEAR = GradientConfig(target="linear", sketch_dim=64, token_budget=100)
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16} | {
    "short_factor": [1.0] * 4,
    "long_factor": [3.0] * 4,
    "factor": 8.0,
}


def model_of(config: Any) -> ProxyModel:
    torch.manual_seed(0)
    return ProxyModel(AutoModelForCausalLM.from_config(config), tokenizer=None, revision="r", path=Path())  # type: ignore[arg-type]


def mamba() -> ProxyModel:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
    return model_of(MambaConfig(**sizes, bos_token_id=0, eos_token_id=1, pad_token_id=2))


def test_a_layer_that_is_never_called_is_left_out_by_name() -> None:
    """Mamba multiplies by dt_proj.weight itself: its hook never fires, and its gradient would count as 0."""
    engine = GradientEngine(mamba(), LINEAR)
    kinds = {name.rpartition(".")[2] for name in engine.gradients(made_up_samples(4))}
    assert kinds == {"in_proj", "x_proj", "out_proj"}
    assert engine.left_out == (
        "backbone.layers.*.mixer.A_log",
        "backbone.layers.*.mixer.conv1d",
        "backbone.layers.*.mixer.dt_proj",
    )


def test_a_layer_that_is_never_called_is_refused_where_it_is_asked_for() -> None:
    with pytest.raises(ModelError, match=r"gradients.layers: backbone.layers.0.mixer.dt_proj is never called"):
        GradientEngine(mamba(), GradientConfig(layers=("dt_proj",)))
    with pytest.raises(ModelError, match=r"conv1d is a Conv1d, not a linear layer"):
        GradientEngine(mamba(), GradientConfig(layers=("conv1d",)))
    engine = GradientEngine(mamba(), GradientConfig(layers=("*",)))
    assert "backbone.layers.*.mixer.dt_proj" in engine.left_out


def test_a_layer_that_mixes_samples_is_refused_or_left_out() -> None:
    model = tiny_model("llama")
    projection = model.model.get_submodule("model.layers.1.mlp.down_proj")

    class Mixing(torch.nn.Module):
        """What a projection would be that sees the tokens of a batch in another order."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = projection

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.roll(1, 0)).roll(-1, 0)

    model.model.set_submodule("model.layers.1.mlp.down_proj", Mixing())
    engine = GradientEngine(model, LINEAR)
    assert engine.left_out == ("model.layers.*.mlp.down_proj.inner",)
    with pytest.raises(ModelError, match="inner mixes samples"):
        GradientEngine(model, GradientConfig(layers=("inner",)))


@pytest.mark.parametrize(
    "config",
    [
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=32,
            max_position_embeddings=128,
        ),
        OlmoConfig(**SIZES, clip_qkv=0.05),
        FalconConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
        CohereConfig(**SIZES, use_qk_norm=True),
        Qwen2Config(**SIZES, max_window_layers=28, use_sliding_window=False),
        Qwen3Config(**SIZES, head_dim=8, max_window_layers=36),
    ],
    ids=["opt", "olmo-clip", "falcon", "cohere-qk-norm", "qwen2-window-layers", "qwen3-window-layers"],
)
def test_projections_that_are_flattened_clipped_in_place_or_of_a_class_of_their_own(config: Any) -> None:
    model, samples = model_of(config), made_up_samples(6)
    found = GradientEngine(model, LINEAR).gradients(samples)
    expected = weight_gradients(model.model, samples, list(found))
    for name, gradient in found.items():
        assert relative_error(gradient, expected[name]) < 1e-4, name


def test_rows_beyond_what_mpt_was_made_for_are_refused_with_the_length() -> None:
    config = MptConfig(vocab_size=VOCABULARY, d_model=32, n_heads=4, n_layers=2, max_seq_len=16)
    engine = GradientEngine(model_of(config), LINEAR)
    within, beyond = (Sample(0, np.arange(3, 3 + size, dtype=np.int32), np.arange(size) > 1) for size in (16, 17))
    found = engine.gradients([within])
    expected = weight_gradients(engine._passes.model, [within], list(found))
    for name, gradient in found.items():
        assert relative_error(gradient, expected[name]) < 1e-4, name
    with pytest.raises(ModelError, match="row 0 has 17 tokens, and the model was made for 16: set max_length to 16"):
        engine.sketch([beyond])


def test_the_transposed_projection_of_gpt2() -> None:
    model, samples = tiny_model("gpt2"), made_up_samples(6)
    found = GradientEngine(model, LINEAR).gradients(samples)
    expected = weight_gradients(model.model, samples, list(found))
    assert len(found) == 8
    for name, gradient in found.items():
        assert relative_error(gradient, expected[name].transpose(1, 2)) < 1e-4, name


@pytest.mark.parametrize("budget", [40, 1000])
def test_longrope_neighbours_on_the_other_side_change_nothing(budget: int) -> None:
    """A row beyond the short length has the whole batch's positions turned by the other table."""
    model = model_of(Phi3Config(**SIZES, rope_parameters=LONGROPE, original_max_position_embeddings=16))
    assert short_length(model.model.config) == 16
    samples = made_up_samples(14, longest=40)
    assert {sample.tokens > 16 for sample in samples} == {True, False}
    engine = GradientEngine(model, GradientConfig(target="linear", sketch_dim=64, token_budget=budget))
    together = engine.sketch(samples).values
    alone = np.concatenate([engine.sketch([sample]).values for sample in samples])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4 * np.abs(alone).max())


def test_longrope_counts_a_row_by_all_its_tokens() -> None:
    """Training runs the whole row, so what follows the last label decides the table too."""
    model = model_of(Phi3Config(**SIZES, rope_parameters=LONGROPE, original_max_position_embeddings=16))
    sample = Sample(0, np.arange(3, 23, dtype=np.int32), np.arange(20) == 9)
    found = GradientEngine(model, LINEAR).gradients([sample])
    expected = weight_gradients(model.model, [sample], list(found))
    for name, gradient in found.items():
        assert relative_error(gradient, expected[name]) < 1e-4, name


def test_no_batch_crosses_the_short_length() -> None:
    lengths = np.array([3, 40, 16, 17, 9, 30])
    batches = plan_batches(lengths, np.arange(6), 1000, 16)
    assert sorted(sorted(batch.tolist()) for batch in batches) == [[0, 2, 4], [1, 3, 5]]


def test_experts_are_a_target_where_they_are_asked_for() -> None:
    model, samples = tiny_model("mixtral"), made_up_samples(8)
    plain = GradientEngine(model, LINEAR)
    assert plain.left_out == ("model.layers.*.mlp.gate", "model.layers.*.mlp.experts")
    assert {name.rpartition(".")[2] for name in plain.gradients(samples)} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    found = GradientEngine(model, GradientConfig(target="linear", layers=("experts",))).gradients(samples)
    weights = [parameter for name, parameter in model.model.named_parameters() if "experts" in name]
    assert found.keys() <= {
        f"model.layers.{block}.mlp.experts.{part}.{expert}"
        for block in range(2)
        for part in ("gate_up_proj", "down_proj")
        for expert in range(4)
    }
    network = tiny_network("mixtral").eval()
    names = [name for name, _ in network.named_parameters() if "experts" in name]
    assert len(names) == len(weights) == 4
    parameters = dict(network.named_parameters())
    for place, sample in enumerate(samples):
        ids = torch.from_numpy(sample.input_ids).long().unsqueeze(0)
        losses = torch.nn.functional.cross_entropy(network(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        loss = losses[torch.from_numpy(sample.loss_mask[1:].copy())].sum()
        gradients = dict(zip(names, torch.autograd.grad(loss, [parameters[name] for name in names]), strict=True))
        for part, rows in found.items():
            name, _, expert = part.rpartition(".")
            error = (rows[place] - gradients[name][int(expert)]).norm() / gradients[name].norm()
            assert error < 1e-4, part


def test_neighbours_change_nothing_at_the_experts() -> None:
    model, samples = tiny_model("mixtral"), made_up_samples(12)
    engine = GradientEngine(model, GradientConfig(layers=("experts", "q_proj"), sketch_dim=128, token_budget=150))
    together = engine.sketch(samples).values
    alone = np.concatenate([engine.sketch([sample]).values for sample in samples])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max())
