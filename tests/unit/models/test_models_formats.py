"""Weights in FP8, MXFP4 and compressed-tensors as their makers write them, turned into the numbers that they stand for.

Each file is written here by hand from plain numbers, and what is loaded is held to those numbers. GPTQ and AWQ need a
package that has no wheel for a CPU: refused, with its name.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import GptOssConfig, GptOssForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.models.errors import ModelError
from workers.models.proxy import ProxyModel, load_model

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 64,
}
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])
"""The numbers that four bits of MXFP4 stand for, by the OCP's specification of microscaling formats."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(LlamaForCausalLM(LlamaConfig(**SIZES)), tmp_path_factory.mktemp("plain") / "llama")


def saved(model: Any, path: Path) -> Path:
    model.save_pretrained(path)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(97)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(path)
    return path


def stored(plain: Path, path: Path, tensors: dict[str, torch.Tensor], quantised: dict[str, Any]) -> Path:
    """A copy of a model with other weights, and what its configuration says of them."""
    shutil.copytree(plain, path)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "quantization_config": quantised}))
    return path


def is_linear(name: str) -> bool:
    return name.removesuffix(".weight").rpartition(".")[2] in LINEAR


def holds(proxy: ProxyModel, expected: dict[str, torch.Tensor]) -> None:
    found = proxy.model.state_dict()
    for name, values in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], values, rtol=1e-6, atol=1e-7, msg=name)
    assert GradientEngine(proxy, GradientConfig(sketch_dim=64)).config.target == "lora"


def test_fp8_with_a_scale_for_each_block(plain: Path, tmp_path: Path) -> None:
    tensors, expected = load_file(plain / "model.safetensors"), {}
    for name in [name for name in tensors if is_linear(name)]:
        blocks = tensors[name].shape[0] // 32, tensors[name].shape[1] // 32
        by_block = tensors[name].reshape(blocks[0], 32, blocks[1], 32)
        scale = by_block.abs().amax((1, 3)) / 448
        small = (by_block / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        expected[name] = (small.float() * scale[:, None, :, None]).reshape(tensors[name].shape)
        tensors[name] = small.reshape(tensors[name].shape)
        tensors[f"{name}_scale_inv"] = scale
    config = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 32]}
    proxy = load_model(stored(plain, tmp_path / "fp8", tensors, config), dtype="float32", device=CPU)
    assert proxy.weights_stored_as == "fp8"
    holds(proxy, expected)


def test_compressed_tensors_with_whole_numbers_and_a_scale_for_each_row(plain: Path, tmp_path: Path) -> None:
    tensors, expected = load_file(plain / "model.safetensors"), {}
    for name in [name for name in tensors if is_linear(name)]:
        scale = tensors[name].abs().amax(1, keepdim=True) / 127
        whole = (tensors[name] / scale).round().to(torch.int8)
        expected[name] = whole.float() * scale
        tensors[name], tensors[f"{name}_scale"] = whole, scale
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    config = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
    proxy = load_model(stored(plain, tmp_path / "ct", tensors, config), dtype="float32", device=CPU)
    assert proxy.weights_stored_as == "compressed-tensors"
    holds(proxy, expected)


def test_mxfp4_as_gpt_oss_has_it(tmp_path: Path) -> None:
    sizes = {**SIZES, "num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["full_attention"] * 2}
    torch.manual_seed(0)
    plain = saved(GptOssForCausalLM(GptOssConfig(**sizes)), tmp_path / "plain")
    tensors, expected = load_file(plain / "model.safetensors"), {}
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        random = torch.Generator().manual_seed(len(name))
        bytes_ = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), generator=random, dtype=torch.uint8)
        scales = torch.randint(120, 124, (experts, outputs, inputs // 32), generator=random, dtype=torch.uint8)
        numbers = torch.stack([E2M1[(bytes_ & 15).long()], E2M1[(bytes_ >> 4).long()]], -1).flatten(-2)
        whole = numbers * torch.exp2(scales.float() - 127).unsqueeze(-1)
        expected[name] = whole.reshape(experts, outputs, inputs).transpose(1, 2)
        tensors |= {f"{name}_blocks": bytes_, f"{name}_scales": scales}
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config = {"quant_method": "mxfp4", "modules_to_not_convert": kept}
    proxy = load_model(stored(plain, tmp_path / "mxfp4", tensors, config), dtype="float32", device=CPU)
    assert proxy.weights_stored_as == "mxfp4"
    holds(proxy, expected)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_format_whose_package_the_worker_lacks_is_refused_with_its_name(
    plain: Path, tmp_path: Path, method: str
) -> None:
    config = {"quant_method": method, "bits": 4, "group_size": 32, "zero_point": True, "sym": True, "desc_act": False}
    path = stored(plain, tmp_path / method, load_file(plain / "model.safetensors"), config)
    with pytest.raises(
        ModelError, match=rf"weights of {method} are stored as {method}, which this worker lacks a package for"
    ) as raised:
        load_model(path, dtype="float32", device=CPU)
    assert "use the original weights" in str(raised.value)
