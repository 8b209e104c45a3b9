"""An adapter that PEFT saved is read as PEFT means it, and whatever is more than B A on linear layers is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from autograd_reference import adapter_gradients, sample_loss
from safetensors.torch import load_file, save_file
from tiny_networks import made_up_samples, tiny_model, tiny_network

from workers.gradients import peft_adapter
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.gradients.peft_adapter import AdapterCache, read_adapter
from workers.gradients.starting_point import StartingPoint
from workers.models.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftModel
    from transformers import PreTrainedModel


def save_peft(network: PreTrainedModel, path: Path, **changes: Any) -> PeftModel:
    """An adapter whose B is not zero, made and saved by PEFT itself."""
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - a second of imports

    choices = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM", **changes}
    peft_model: PeftModel = get_peft_model(network, LoraConfig(**choices))
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    peft_model.save_pretrained(path)
    return peft_model.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True, "lora_dropout": 0.5},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"1.mlp.down_proj": 3}},
        {"target_modules": "all-linear"},
    ],
    ids=["plain", "rslora", "patterns", "all-linear"],
)
def test_losses_and_gradients_are_those_of_pefts_own_model(tmp_path: Path, changes: dict[str, Any]) -> None:
    samples = made_up_samples(6)
    theirs = save_peft(tiny_network("llama"), tmp_path, **changes)
    adapter, model = read_adapter(tmp_path), tiny_model("llama")
    engine = GradientEngine(model, GradientConfig(adapter=adapter.revision, sketch_dim=16), StartingPoint(adapter))
    expected = [sample_loss(theirs, sample).item() for sample in samples]
    assert engine.sketch(samples).losses.tolist() == pytest.approx(expected, rel=1e-4)

    found = engine.gradients(samples)
    assert found.keys() == adapter_gradients(model.model, samples[:1], adapter).keys()
    for place, sample in enumerate(samples):
        theirs.zero_grad()
        sample_loss(theirs, sample).backward()
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                part = name.removeprefix("base_model.model.").removesuffix(".default.weight")
                assert parameter.grad is not None
                longest = float(found[part].flatten(1).norm(dim=1).max())
                error = (found[part][place] - parameter.grad).norm() / max(float(parameter.grad.norm()), 1e-2 * longest)
                assert float(error) < 1e-4, name


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "adapter"
    save_peft(tiny_network("llama"), path)
    return path


def configure(directory: Path, **changes: object) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "is of type 'IA3': only LORA"),
        ({"use_dora": True}, "uses use_dora: train an adapter of plain LoRA"),
        ({"bias": "all"}, "uses bias"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changed the base model"),
        ({"init_lora_weights": ["pissa"]}, "init_lora_weights="),
        ({"lora_alpha": "many"}, "no number as lora_alpha"),
        ({"lora_alpha": float("nan")}, "no number as lora_alpha"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "regular expression '\\(a"),
    ],
)
def test_a_configuration_of_another_kind_is_refused(directory: Path, changes: dict[str, Any], message: str) -> None:
    configure(directory, **changes)
    with pytest.raises(ModelError, match=f"^gradients.adapter: .*{message}"):
        read_adapter(directory)


def rewrite(directory: Path, key: str, tensor: torch.Tensor | None) -> None:
    file = directory / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop(key, None)
    save_file(tensors if tensor is None else {**tensors, key: tensor}, file)


Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        (f"{Q_PROJ}.lora_A.weight", None, "no A and B that fit"),
        (f"{Q_PROJ}.lora_A.weight", torch.zeros(5, 32), "no A and B that fit"),
        (f"{Q_PROJ}.lora_magnitude_vector", torch.zeros(32), "holds .*lora_magnitude_vector"),
        ("base_model.model.lm_head.weight", torch.zeros(97, 32), "holds .*lm_head"),
    ],
)
def test_tensors_that_are_no_plain_adapter_are_refused(
    directory: Path, key: str, tensor: torch.Tensor | None, message: str
) -> None:
    rewrite(directory, key, tensor)
    with pytest.raises(ModelError, match=f"^gradients.adapter: .*{message}"):
        read_adapter(directory)


def test_pickled_weights_are_never_opened(directory: Path) -> None:
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"has no adapter_model.safetensors: .* can run code"):
        read_adapter(directory)


def test_broken_files_and_links_are_refused(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a directory"):
        read_adapter(tmp_path / "absent")
    weights = directory / "adapter_model.safetensors"
    moved = weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(moved)
    with pytest.raises(ModelError, match="is a link out of the directory"):
        read_adapter(directory)
    weights.unlink()
    weights.write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="can't be read"):
        read_adapter(directory)
    (directory / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        read_adapter(directory)
    (directory / "adapter_config.json").write_text(" " * (1 << 20) + "{}")
    with pytest.raises(ModelError, match="is larger than"):
        read_adapter(directory)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("model.layers.7.self_attn.q_proj", "adapts model.layers.7.self_attn.q_proj, which the model does not have"),
        ("lm_head", "adapts lm_head, a Linear: only linear layers of the decoder's blocks"),
        ("model.layers.0.mlp.down_proj", r"is made for a .*down_proj of shape \(32, 32\), the model's is \(32, 48\)"),
    ],
)
def test_an_adapter_of_another_model_is_refused(directory: Path, layer: str, message: str) -> None:
    rewrite(directory, f"base_model.model.{layer}.lora_A.weight", torch.ones(4, 32))
    rewrite(directory, f"base_model.model.{layer}.lora_B.weight", torch.ones(32, 4))
    adapter = read_adapter(directory)
    with pytest.raises(ModelError, match=message):
        GradientEngine(tiny_model("llama"), GradientConfig(adapter=adapter.revision), StartingPoint(adapter))


def test_layers_that_the_adapter_lacks_can_not_be_chosen(directory: Path) -> None:
    adapter = read_adapter(directory)
    config = GradientConfig(adapter=adapter.revision, layers=("q_proj", "v_proj"))
    with pytest.raises(ModelError, match="named v_proj: this adapter has down_proj, q_proj"):
        GradientEngine(tiny_model("llama"), config, StartingPoint(adapter))


def test_the_cache_reads_an_adapter_once_until_it_changes(directory: Path) -> None:
    cache = AdapterCache()
    first = cache.get(directory)
    assert cache.get(directory) is first
    configure(directory, lora_alpha=17)
    changed = cache.get(directory)
    assert changed.revision != first.revision
    assert {low_rank.scale for low_rank in changed.layers.values()} == {17 / 4}


def test_the_revision_is_that_of_the_bytes_that_were_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an adapter that is saved anew at this moment would be scored under the name of its successor."""
    expected, load = read_adapter(directory), peft_adapter.load

    def saved_again(content: bytes) -> dict[str, torch.Tensor]:
        configure(directory, lora_alpha=17)
        (directory / "adapter_model.safetensors").write_bytes(b"")
        return load(content)

    monkeypatch.setattr(peft_adapter, "load", saved_again)
    found = read_adapter(directory)
    assert found.revision == expected.revision
    assert {low_rank.scale for low_rank in found.layers.values()} != {17 / 4}
