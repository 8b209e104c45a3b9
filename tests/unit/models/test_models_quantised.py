"""Quantised weights: loaded where transformers can, gradients taken of what is computed, and said in the result."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from workers.data.samples import Sample
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.models.errors import ModelError, in_brief
from workers.models.proxy import load_model
from workers.models.quantised import settled, stored_as

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
FORMATS = {
    "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
}


def samples() -> list[Sample]:
    random = np.random.default_rng(0)
    rows = [random.integers(3, 97, length).astype(np.int32) for length in (9, 4, 14)]
    return [Sample(row, ids, np.arange(len(ids)) > 1) for row, ids in enumerate(rows)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "plain"
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=97,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
        )
    ).save_pretrained(path)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(97)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(path)
    return path


@pytest.mark.parametrize("stored", ["nf4", "int8"])
def test_bitsandbytes_weights_give_the_gradients_of_what_they_stand_for(
    plain: Path, tmp_path: Path, stored: str
) -> None:
    """Against a plain model that is given the dequantised weights, on bitsandbytes' path for CPUs."""
    quantised = AutoModelForCausalLM.from_pretrained(plain, quantization_config=FORMATS[stored], dtype=torch.float32)
    quantised.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((plain / name).read_bytes())
    proxy = load_model(tmp_path, dtype="float32", device=CPU)
    assert proxy.weights_stored_as == stored
    reference = load_model(plain, dtype="float32", device=CPU)
    whole = quantised.dequantize(dtype=torch.float32).state_dict()
    reference.model.load_state_dict({name: whole[name] for name in reference.model.state_dict()})
    for config in (GradientConfig(sketch_dim=128), GradientConfig(target="linear", sketch_dim=128)):
        found = GradientEngine(proxy, config).sketch(samples()).values
        expected = GradientEngine(reference, config).sketch(samples()).values
        assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
    engine = GradientEngine(proxy, GradientConfig(sketch_dim=128))
    alone = np.concatenate([engine.sketch([sample]).values for sample in samples()])
    np.testing.assert_allclose(engine.sketch(samples()).values, alone, rtol=1e-3, atol=1e-4 * np.abs(alone).max())


def test_only_the_fields_of_a_method_are_passed_on() -> None:
    """A configuration may name kernels of the hub; FP8 and the like are asked for as plain numbers."""
    hostile = {"quant_method": "fp8", "weight_block_size": [128, 128], "kernels": "someone/code", "dequantize": False}
    found = settled({"quantization_config": hostile}, "config.json", "bfloat16")
    assert found == {"quant_method": "fp8", "weight_block_size": [128, 128], "dequantize": True}
    assert stored_as(found) == "fp8"
    assert settled({"hidden_size": 8}, "config.json", "float32") is None


def test_a_format_that_is_not_known_is_refused(plain: Path, tmp_path: Path) -> None:
    for file in plain.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "hqq"}}))
    with pytest.raises(ModelError, match=r"is quantised by 'hqq', and what can be loaded is awq, bitsandbytes"):
        load_model(tmp_path, dtype="float32", device=CPU)


def test_a_library_that_says_nothing_is_told_as_such() -> None:
    """A bare assertion is how bitsandbytes refuses some weights."""
    assert in_brief(AssertionError()) == "AssertionError: it gives no reason"
    assert in_brief(ValueError("two\nlines")) == "ValueError: two lines"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quant_method": "fp8", "weight_block_size": "x"}, "weight_block_size must be a tuple of two integers"),
        ({"quant_method": "fp8", "activation_scheme": "odd"}, "Activation scheme odd"),
        ({"quant_method": "mxfp4", "modules_to_not_convert": 7}, "not iterable"),
        ({"quant_method": "compressed-tensors", "config_groups": "x"}, "valid dictionary"),
        ({"quant_method": "bitsandbytes"}, "can't be loaded"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": "yes"}, "load_in_4bit must be a boolean"),
        ({"quant_method": "gptq", "bits": 17}, "bits but found 17"),
        ("fp8", "is quantised by 'None'"),
    ],
    ids=lambda value: str(value)[:60] if not isinstance(value, str) else None,
)
def test_settings_that_a_library_refuses_are_refused_in_its_words(
    plain: Path, tmp_path: Path, settings: object, said: str
) -> None:
    """By the field of the request, and never as an error of ours."""
    for file in plain.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    with pytest.raises(ModelError, match=said) as raised:
        load_model(tmp_path, dtype="float32", device=CPU)
    assert str(raised.value).startswith("model.uri: ")


@pytest.mark.parametrize(("dtype", "named"), [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3")])
def test_weights_of_8_bits_that_no_configuration_speaks_of_are_refused(
    plain: Path, tmp_path: Path, dtype: torch.dtype, named: str
) -> None:
    """Transformers would take the numbers as they are, without their scale."""
    path = shutil.copytree(plain, tmp_path / "model")
    tensors = load_file(path / "model.safetensors")
    layer = "model.layers.0.self_attn.q_proj.weight"
    scale = float(tensors[layer].abs().max()) / 127
    tensors |= {layer: (tensors[layer] / scale).to(dtype), f"{layer}_scale": torch.tensor(scale)}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"no quantization_config, and {layer} is stored as {named}"):
        load_model(path, dtype="float32", device=CPU)
