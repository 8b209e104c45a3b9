"""A model's memory is estimated before it is loaded, and one that cannot fit is refused with the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from workers.models.device import beside
from workers.models.errors import ModelTooLarge
from workers.models.memory import MemoryNeeded, Work, check_memory, container_memory, kept_numbers, memory_needed
from workers.models.proxy import load_model
from workers.runtime.failures import problem_of

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

CPU = torch.device("cpu")
GIB = 1 << 30
SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
NETWORKS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=64, n_layer=3, n_head=4)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=16)),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=8, num_experts_per_tok=2)),
}


def kept_by_autograd(model: PreTrainedModel, tokens: int) -> int:
    """Bytes that one forward pass saves for the backward pass, weights and positions not counted, each tensor once."""
    weights = {parameter.data_ptr() for parameter in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in weights and tensor.dtype.is_floating_point:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.eval().requires_grad_(requires_grad=False)
    head = model.get_output_embeddings()
    handles = [
        model.get_input_embeddings().register_forward_hook(lambda _m, _a, output: output.requires_grad_()),
        head.register_forward_pre_hook(lambda _m, args: (args[0].detach(),)),
    ]
    tensors: list[torch.Tensor] = []  # so that no storage is used twice
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (tensors.append(tensor), keep(tensor))[1], lambda one: one
    ):
        model(input_ids=torch.arange(tokens).unsqueeze(0) % 97, use_cache=False)
    for handle in handles:
        handle.remove()
    return sum(kept.values())


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_a_token_keeps_is_bounded_and_no_more_than_thrice_what_autograd_keeps(kind: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[kind]()
    kept = kept_by_autograd(model, 64) / 64 / torch.float32.itemsize
    assert kept <= kept_numbers(model) <= 3 * kept


def test_the_estimate_counts_weights_by_dtype_and_the_sketches_of_a_shard(saved_model: Path) -> None:
    work = Work(row_tokens=100, rows=1000, sketch_dim=512)
    whole, half = (memory_needed(saved_model, dtype=dtype, work=work) for dtype in ("float32", "bfloat16"))
    model = load_model(saved_model, dtype="float32", device=CPU).model
    numbers = sum(parameter.numel() for parameter in model.parameters())
    assert whole.parameters == half.parameters == numbers
    assert numbers * 4 <= whole.weights <= numbers * 4 + (1 << 16)
    assert whole.weights - half.weights == numbers * 2
    assert whole.per_token == 2 * half.per_token
    assert whole.sketches >= 1000 * 512 * 4
    assert whole.total(100) == whole.weights + whole.sketches + 100 * whole.per_token
    assert whole.tokens_within(whole.total(100)) == 100


def test_a_model_that_cannot_fit_is_refused_before_any_weight_is_read(
    saved_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.models.proxy._loaded", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(
        ModelTooLarge, match=r"^model.uri: tiny takes about .* for the longest row of 1,000,000,000,000"
    ) as raised:
        load_model(saved_model, dtype="float32", device=CPU, work=Work(10**12, 100, 64))
    problem = problem_of(raised.value)
    assert problem["type"] == "model-too-large"
    assert problem["errors"][0]["field"] == "model.uri"


@pytest.mark.parametrize(
    ("available", "others", "remedy"),
    [
        (13 * GIB, 0, "set model.dtype to bfloat16, which takes about 12.0 GiB"),
        (11 * GIB, 0, "set model.max_length to 1,024 or less"),
        (5 * GIB, 0, "use a smaller or a quantised proxy model, or give the worker more memory"),
        (5 * GIB, 3, 'set model.devices to "all" to spread it over this worker\'s GPUs'),
    ],
)
def test_the_remedy_is_one_that_the_numbers_allow(
    monkeypatch: pytest.MonkeyPatch, available: int, others: int, remedy: str
) -> None:
    needed = MemoryNeeded(parameters=2 * GIB, weights=8 * GIB, per_token=4 << 20, sketches=2 * GIB)
    if available == 11 * GIB:
        needed = MemoryNeeded(parameters=2 * GIB, weights=8 * GIB, per_token=2 << 20, sketches=1 * GIB)
    monkeypatch.setattr("workers.models.memory.available_memory", lambda _: available)
    work = Work(row_tokens=3072 if available > 11 * GIB else 10_000)
    with pytest.raises(ModelTooLarge) as raised:
        check_memory("proxy", needed, work, [CPU], dtype="float32", others=others)
    assert remedy in str(raised.value)
    monkeypatch.setattr("workers.models.memory.available_memory", lambda _: needed.total(work.row_tokens))
    check_memory("proxy", needed, work, [CPU], dtype="float32")


def test_a_batch_is_as_large_as_memory_allows(saved_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(row_tokens=10)
    needed = memory_needed(saved_model, dtype="float32", work=work)
    for module in ("memory", "proxy"):
        monkeypatch.setattr(f"workers.models.{module}.available_memory", lambda _: needed.total(50))
    proxy = load_model(saved_model, dtype="float32", device=CPU, work=work)
    assert [proxy.batch_tokens(budget) for budget in (20, 50, 4096)] == [20, 50, 50]
    assert load_model(saved_model, dtype="float32", device=CPU).batch_tokens(4096) == 4096


def test_a_container_has_what_its_limit_leaves_and_its_file_cache_is_free(tmp_path: Path) -> None:
    assert container_memory(tmp_path) is None
    (tmp_path / "memory.current").write_text(f"{700}\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 120\nactive_file 30\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert container_memory(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert container_memory(tmp_path) == 450


def test_on_a_cpu_all_devices_are_the_one() -> None:
    assert beside(CPU) == ()
