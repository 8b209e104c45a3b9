"""A model spread over several places gives the sketches of one device: each is made where its layer is.

Two GPUs are not to be had here. Memory and disk are: accelerate's hooks move what a block sees, and keep its weights
away from where the batch is, as on two GPUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from accelerate.utils.modeling import check_device_map
from tiny_networks import SIZES, made_up_samples, tiny_model, tiny_network
from transformers import LlamaConfig, LlamaForCausalLM

from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.models.placement import device_map
from workers.models.proxy import ProxyModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CPU = torch.device("cpu")
CONFIGS = {
    "lora": GradientConfig(sketch_dim=128),
    "linear": GradientConfig(target="linear", sketch_dim=128),
    "last_layer": GradientConfig(target="last_layer", sketch_dim=128),
    "experts": GradientConfig(target="linear", layers=("experts", "q_proj"), sketch_dim=128),
}


def numbers_by_device(model: PreTrainedModel, placed: dict[str, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        [device] = {device for part, device in placed.items() if f"{name}.".startswith(f"{part}.")}
        found[device] = found.get(device, 0) + parameter.numel()
    return found


@pytest.mark.parametrize("devices", [2, 3])
def test_blocks_are_dealt_out_in_turn_and_what_is_around_them_is_on_the_first(devices: int) -> None:
    model = LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_hidden_layers": 12}))
    names = [torch.device("cuda", number) for number in range(devices)]
    placed = device_map(model, names)
    check_device_map(model, placed)
    blocks = [placed[f"model.layers.{block}"] for block in range(12)]
    assert blocks == sorted(blocks)
    assert {placed[name] for name in ("model.embed_tokens", "model.norm", "lm_head")} == {"cuda:0"}
    sizes = numbers_by_device(model, placed)
    block = sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    even = sum(sizes.values()) / devices
    assert len(sizes) == devices
    assert all(abs(size - even) <= block for size in sizes.values())
    assert device_map(model, [CPU, CPU]) == {"": "cpu"}


@pytest.mark.parametrize(
    ("architecture", "target"),
    [
        ("llama", "lora"),
        ("llama", "linear"),
        ("llama_tied", "last_layer"),
        ("gpt2", "linear"),
        ("gemma2", "lora"),
        ("mixtral", "experts"),
    ],
)
def test_blocks_that_lie_elsewhere_give_the_sketches_of_one_device(
    architecture: str, target: str, tmp_path: Path
) -> None:
    samples, config = made_up_samples(9), CONFIGS[target]
    expected = GradientEngine(tiny_model(architecture), config).sketch(samples)
    network = tiny_network(architecture).eval()
    placed = device_map(network, [CPU, torch.device("meta")])
    placed = {name: "disk" if device == "meta" else device for name, device in placed.items()}
    assert {"cpu", "disk"} == set(placed.values())
    apart = dispatch_model(network, device_map=placed, offload_dir=str(tmp_path), main_device="cpu")
    assert any(parameter.is_meta for parameter in apart.parameters())
    engine = GradientEngine(ProxyModel(apart, None, "r", Path()), config)  # type: ignore[arg-type]
    found = engine.sketch(samples)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5, atol=1e-6 * np.abs(expected.values).max())
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-6)
