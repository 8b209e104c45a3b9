"""Loading a proxy model runs no foreign code, reads nothing outside the directory and says what is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_networks import SIZES, tiny_network
from tokenizers import Tokenizer, models
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SwitchTransformersConfig,
)

from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.models.device import resolve_device
from workers.models.errors import ModelError
from workers.models.files import model_files
from workers.models.limits import ModelLimits
from workers.models.proxy import ModelCache, load_model
from workers.models.tokenizer import TokenizerCache

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
LIMITS = ModelLimits()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    tiny_network("llama").save_pretrained(path)
    words = {f"w{number}": number for number in range(97)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(path)
    return path


def test_a_saved_model_loads_frozen_and_without_dropout(directory: Path) -> None:
    proxy = load_model(directory, dtype="bfloat16", device=CPU)
    assert proxy.model.dtype == torch.bfloat16
    assert not proxy.model.training
    assert not any(parameter.requires_grad for parameter in proxy.model.parameters())
    assert proxy.tokenizer.convert_tokens_to_ids("w5") == 5


def test_the_revision_is_that_of_the_content(directory: Path, tmp_path: Path) -> None:
    first = model_files(directory, LIMITS).revision
    moved = directory.rename(tmp_path / "elsewhere")
    (moved / "README.md").write_text("not part of the model")
    assert model_files(moved, LIMITS).revision == first
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-4}))
    assert model_files(moved, LIMITS).revision != first


def refused(path: Path, message: str, dtype: str = "float32") -> None:
    with pytest.raises(ModelError, match=message):
        load_model(path, dtype=dtype, device=CPU)


def test_no_directory(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "is not a directory")


def test_no_config(directory: Path) -> None:
    (directory / "config.json").unlink()
    refused(directory, "has no config.json")


def test_pickled_weights_are_never_opened(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    refused(directory, "has no model.safetensors: other weight files can run code")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(directory: Path, name: str) -> None:
    content = json.loads((directory / name).read_text())
    (directory / name).write_text(json.dumps({**content, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    (directory / "evil.py").write_text("raise SystemExit('ran')")
    refused(directory, f"{name} asks to run code")


def test_a_link_out_of_the_directory_is_refused(directory: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (directory / "added_tokens.json").symlink_to(secret)
    refused(directory, "added_tokens.json is a link out of the directory: copy")


def test_a_link_within_the_directory_serves(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "weights.blob")
    (directory / "model.safetensors").symlink_to("weights.blob")
    load_model(directory, dtype="float32", device=CPU)


def test_quantised_weights_are_refused(directory: Path) -> None:
    content = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**content, "quantization_config": {"bits": 4}}))
    refused(directory, "is quantised by .*: use the original weights")


def test_a_broken_weight_file_has_a_plain_message(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"no tensors")
    refused(directory, "model.safetensors is not what its header says")


def configured(directory: Path, **changed: object) -> None:
    config = directory / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changed))


@pytest.mark.parametrize(("field", "value"), [("num_hidden_layers", 3), ("vocab_size", 90), ("intermediate_size", 64)])
def test_missing_weights_are_never_filled_with_random_ones(directory: Path, field: str, value: int) -> None:
    configured(directory, **{field: value})
    refused(directory, r"lacks weights that its configuration asks for, or has them in other shapes: \w+\.")


def test_what_the_files_hold_besides_is_told(directory: Path) -> None:
    """Blocks that the configuration does not count, and tensors of no module of the model."""
    assert load_model(directory, dtype="float32", device=CPU).unread == ()
    weights = load_file(directory / "model.safetensors")
    adapters = {
        f"model.layers.{block}.mlp.up_proj.lora_A": torch.zeros(2) for block in range(SIZES["num_hidden_layers"])
    }
    besides = {"visual.blocks.0.weight": torch.zeros(2), "visual.norm": torch.zeros(2), **adapters}
    save_file(weights | besides, directory / "model.safetensors", metadata={"format": "pt"})
    configured(directory, num_hidden_layers=SIZES["num_hidden_layers"] - 1)
    proxy = load_model(directory, dtype="float32", device=CPU)
    last = f"model.layers.{SIZES['num_hidden_layers'] - 1}"
    assert proxy.unread == (*sorted(["model.layers.*.mlp.up_proj.lora_A", last]), "visual")
    assert GradientEngine(proxy, GradientConfig(sketch_dim=8)).left_out == proxy.unread


@pytest.mark.parametrize(
    ("file", "changed", "message"),
    [
        ("config.json", {"num_attention_heads": 5}, "configuration .* not a multiple .* model.save_pretrained"),
        ("config.json", {"hidden_size": "big"}, "configuration .*hidden_size.* model.save_pretrained"),
        ("tokenizer.json", {"model": {"type": "None"}}, "tokenizer .* tokenizer.save_pretrained"),
    ],
)
def test_the_file_that_is_wrong_is_the_one_that_is_named(
    directory: Path, file: str, changed: dict[str, object], message: str
) -> None:
    content = json.loads((directory / file).read_text())
    (directory / file).write_text(json.dumps(content | changed))
    with pytest.raises(ModelError, match=rf"^model.uri: the {message}$"):
        TokenizerCache(LIMITS).get(directory)


def test_half_precision_without_loss_scaling_is_refused(directory: Path) -> None:
    refused(directory, "underflow without loss scaling: use bfloat16", dtype="float16")
    refused(directory, "'int8' is not one of float32, bfloat16", dtype="int8")


def test_the_cache_loads_a_model_once_until_it_changes(directory: Path) -> None:
    cache = ModelCache()
    first = cache.get(directory, dtype="float32", device=CPU)
    assert cache.get(directory, dtype="float32", device=CPU) is first
    assert cache.get(directory, dtype="bfloat16", device=CPU) is not first
    again = cache.get(directory, dtype="float32", device=CPU)
    (directory / "config.json").write_text((directory / "config.json").read_text() + "\n")
    changed = cache.get(directory, dtype="float32", device=CPU)
    assert changed is not again
    assert changed.revision != again.revision


@pytest.mark.parametrize("load", [ModelCache().get, TokenizerCache().get])
def test_a_model_that_changes_while_it_is_read_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch, load: Any
) -> None:
    """Else its old weights would be scored under the revision of the new ones."""
    read = AutoTokenizer.from_pretrained

    def saved_again(*arguments: Any, **options: Any) -> Any:
        weights = directory / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
        return read(*arguments, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", saved_again)
    options = {"dtype": "float32", "device": CPU} if load.__self__.__class__ is ModelCache else {}
    with pytest.raises(ModelError, match="tiny was written to while it was read: submit again"):
        load(directory, **options)
    monkeypatch.undo()
    assert load(directory, **options).revision == model_files(directory, LIMITS).revision


def test_devices_by_setting() -> None:
    assert resolve_device("cpu") == CPU
    if not torch.cuda.is_available():
        assert resolve_device("auto") == CPU
        with pytest.raises(ModelError, match="no CUDA device"):
            resolve_device("cuda:0")


def test_a_configuration_may_name_more_window_layers_than_it_has_layers(directory: Path) -> None:
    """`max_window_layers` says from which layer on a window is used; the tiny Qwen2 and Qwen3 keep 28 and 36."""
    Qwen2ForCausalLM(Qwen2Config(**SIZES, max_window_layers=28)).save_pretrained(directory)
    assert load_model(directory, dtype="float32", device=CPU).model.config.max_window_layers == 28


def test_experts_with_a_limit_of_tokens_are_refused_by_the_name_of_the_limit(directory: Path) -> None:
    SwitchTransformersConfig(num_layers=1, num_decoder_layers=1, expert_capacity=64).save_pretrained(directory)
    refused(directory, "limits the tokens that an expert takes .expert_capacity 64.")
