"""How the engine runs: budgets, progress, stopping, running out of memory, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import VOCABULARY, made_up_samples, tiny_model

from workers.data.samples import Sample
from workers.data.stopping import Stopped
from workers.gradients.batches import plan_batches
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.gradients.head import OwnHead, PlainHead
from workers.gradients.passes import BatchDone
from workers.models.errors import ModelError, SampleTooLarge

if TYPE_CHECKING:
    from workers.gradients.batches import Batch
    from workers.gradients.head import HeadTap

CONFIG = GradientConfig(rank=2, sketch_dim=32, token_budget=60)


@given(lengths=st.lists(st.integers(1, 50), max_size=40), budget=st.integers(1, 200))
@settings(deadline=None)
def test_batches_keep_the_budget_and_every_sample_once(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    batches = plan_batches(sizes, np.arange(sizes.size), budget)
    assert sorted(int(index) for batch in batches for index in batch) == list(range(sizes.size))
    for batch in batches:
        assert batch.size == 1 or batch.size * sizes[batch].max() <= budget


def test_progress_adds_up() -> None:
    samples, seen = made_up_samples(20), list[BatchDone]()
    GradientEngine(tiny_model("llama"), CONFIG).sketch(samples, on_batch=seen.append)
    assert len(seen) > 1
    assert sum(done.samples for done in seen) == 20
    assert sum(done.tokens for done in seen) == sum(sample.tokens for sample in samples)
    assert all(done.positions <= 60 for done in seen)


def test_no_samples_make_no_rows() -> None:
    assert GradientEngine(tiny_model("llama"), CONFIG).sketch([]).values.shape == (0, 32)


def test_stopping_ends_the_run_and_leaves_the_engine_usable() -> None:
    model, samples = tiny_model("llama"), made_up_samples(10)
    engine = GradientEngine(model, CONFIG)
    with pytest.raises(Stopped):
        engine.sketch(samples, should_stop=lambda: True)
    assert not any(module._forward_hooks for module in model.model.modules())
    assert np.isfinite(engine.sketch(samples).values).all()


def test_stopping_acts_inside_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.gradients.passes.POLL_S", 0.0)
    done: list[BatchDone] = []
    for patience in (5, 25):  # in the forward pass, in the backward pass
        asked = iter(range(1000))
        with pytest.raises(Stopped):
            GradientEngine(tiny_model("llama"), GradientConfig(sketch_dim=32)).sketch(
                made_up_samples(4),
                on_batch=done.append,
                should_stop=lambda asked=asked, patience=patience: next(asked) >= patience,  # type: ignore[misc]
            )
    assert done == []


class SmallMemory:
    """A head on a device where batches of more positions than `most` do not fit."""

    def __init__(self, head: PlainHead, most: int, error: Exception | None = None) -> None:
        self.head, self.most = head, most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def run(self, batch: Batch, tap: HeadTap | None = None) -> torch.Tensor:
        if batch.input_ids.numel() > self.most:
            raise self.error
        return self.head.run(batch, tap)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=["torch", "torch.cuda", "host", "cpu", "cublas", "cuda"],
)
def test_running_out_of_memory_halves_the_budget_and_goes_on(error: Exception) -> None:
    model, samples = tiny_model("llama"), made_up_samples(20)
    expected = GradientEngine(model, CONFIG).sketch(samples).values
    engine, seen = GradientEngine(model, GradientConfig(rank=2, sketch_dim=32, token_budget=1000)), list[BatchDone]()
    engine._passes._head = SmallMemory(engine._passes._head, most=100, error=error)  # type: ignore[arg-type]
    found = engine.sketch(samples, on_batch=seen.append).values
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert sum(done.samples for done in seen) == 20
    assert engine.token_budget <= 100


@pytest.mark.parametrize("config", [CONFIG, GradientConfig(target="linear", sketch_dim=32)], ids=["lora", "linear"])
def test_memory_that_runs_out_in_the_middle_of_a_backward_pass_leaves_nothing_of_it(config: GradientConfig) -> None:
    """Some layers are in the sums by then: they must not count twice, and no hook may stay."""
    model, samples = tiny_model("llama"), made_up_samples(20)
    expected = GradientEngine(model, config).sketch(samples).values
    engine, failed = GradientEngine(model, replace(config, token_budget=1000)), list[int]()
    part = list(engine._sketches)[len(engine._sketches) // 2]
    whole = engine._sketches[part]

    def small(u: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        if u.shape[0] > 3:
            failed.append(u.shape[0])
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(u, d)

    engine._sketches[part] = small  # type: ignore[assignment]
    found = engine.sketch(samples).values
    assert len(failed) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.model.parameters())


def test_the_loop_over_batches_does_not_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that leaves its tensor makes a GPU end all its work first.

    There is no GPU here to see it on; what would wait there is counted instead. transformers asks one tensor a forward
    pass whether rows are packed; nothing else may ask before the run's end.
    """
    engine, waits = GradientEngine(tiny_model("llama"), CONFIG), list[str]()

    def counted(name: str) -> None:
        original = getattr(torch.Tensor, name)

        def call(*arguments: Any, **options: Any) -> Any:
            waits.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, call)

    for name in ("item", "cpu", "numpy", "tolist", "__bool__", "__float__", "__int__", "nonzero"):
        counted(name)
    seen: list[int] = []
    engine.sketch(made_up_samples(20), on_batch=lambda _done: seen.append(len(waits)))
    assert len(seen) > 1
    assert seen == list(range(1, len(seen) + 1))
    assert set(waits[: seen[-1]]) == {"__bool__"}
    assert waits.count("cpu") == 4  # the sketches, the losses, those of the ends, what is finite


def test_a_sample_that_never_fits_is_named() -> None:
    engine = GradientEngine(tiny_model("llama"), CONFIG)
    engine._passes._head = SmallMemory(engine._passes._head, most=3)  # type: ignore[arg-type]
    with pytest.raises(SampleTooLarge, match=r"row \d+ \(\d+ tokens\) does not fit .*: lower model.max_length"):
        engine.sketch(made_up_samples(5))


def test_other_errors_pass_through() -> None:
    def broken(_done: BatchDone) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        GradientEngine(tiny_model("llama"), CONFIG).sketch(made_up_samples(5), on_batch=broken)


def sample(ids: list[int], mask: list[bool]) -> Sample:
    return Sample(row=41, input_ids=np.array(ids, dtype=np.int32), loss_mask=np.array(mask))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (sample([5, 6], [True, False]), "row 41 has no response token"),
        (sample([5, VOCABULARY], [False, True]), "^model.uri: row 41 has token 97, and the model has 97 of them: save"),
        (sample([5, -1], [False, True]), "^model.uri: row 41 has token -1, and"),
        (
            sample([5] * 129, [True] * 129),
            "^model.max_length: row 41 has 129 tokens, .* for 128: set",
        ),
    ],
)
def test_a_sample_that_can_not_be_differentiated_is_refused(bad: Sample, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientEngine(tiny_model("llama"), CONFIG).sketch([bad])


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("mixtral", GradientConfig(layers=("gate",)), "0.mlp.gate is a MixtralTopKRouter, not a linear layer"),
        ("llama", GradientConfig(layers=("experts",)), "no linear layer is named experts: .*down_proj"),
        ("llama", GradientConfig(layers=("c_attn", "q_proj")), "no linear layer is named c_attn: .*down_proj"),
    ],
)
def test_a_model_that_can_not_serve_is_refused(architecture: str, config: GradientConfig, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        GradientEngine(tiny_model(architecture), config)


def test_attention_that_looks_ahead_is_refused() -> None:
    model = tiny_model("llama")
    for layer in model.model.model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(ModelError, match="padding changes a sample"):
        GradientEngine(model, CONFIG)


@pytest.mark.parametrize(("weight", "message"), [(0.0, "are zero out of"), (float("nan"), "are not finite out of")])
def test_weights_that_make_nothing_of_a_row_are_refused(weight: float, message: str) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.model.norm.weight.fill_(weight)
    with pytest.raises(ModelError, match=message):
        GradientEngine(model, CONFIG)


@pytest.mark.parametrize(
    ("architecture", "head"),
    [("llama", PlainHead), ("qwen2", PlainHead), ("gemma2", OwnHead), ("cohere", OwnHead), ("granite", OwnHead)],
)
def test_the_short_way_to_logits_is_taken_only_where_it_is_right(architecture: str, head: type) -> None:
    assert type(GradientEngine(tiny_model(architecture), CONFIG)._passes._head) is head


def test_logits_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = tiny_model("llama"), made_up_samples(6)
    expected = GradientEngine(model, CONFIG).sketch(samples).values
    monkeypatch.setattr("workers.gradients.head.LOGITS_AT_ONCE", 3 * VOCABULARY)
    np.testing.assert_allclose(GradientEngine(model, CONFIG).sketch(samples).values, expected, rtol=1e-4, atol=1e-4)


def test_nothing_below_the_first_target_layer_is_differentiated() -> None:
    model = tiny_model("llama")
    graphs: list[bool] = []
    for layer in model.model.model.layers:
        layer.register_forward_hook(lambda _layer, _args, output: graphs.append(output.requires_grad))
    engine = GradientEngine(model, GradientConfig(layers=("1.mlp.down_proj",), sketch_dim=16))
    graphs.clear()
    engine.sketch(made_up_samples(3))
    assert graphs == [False, True]
