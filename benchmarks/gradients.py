"""How fast per-sample sketches are made, against a training step and against one sample at a time.

    python -m benchmarks.gradients [--quick]

All sides of a comparison run in one process on the same rows, in turns, and the ratio of each turn's times is taken
before the median: what else the machine does meanwhile hits both. Sizes are in samples and real tokens; padding counts
as time, not as work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import gradients_memory, growing
from benchmarks.gradients_corpus import corpus
from benchmarks.gradients_peers import Bergson, Trak
from benchmarks.row import BenchRow, versions
from benchmarks.smollm2 import smollm2_directory
from benchmarks.training_step import IGNORED, RANK, TRAINING_ROWS, Adapted, training_batch, training_steps
from workers.data.samples import Sample
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.models.proxy import ProxyModel, load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

THREADS = 2
VMAP_ROWS = 32
CPU = torch.device("cpu")


def one_at_a_time(adapted: Adapted, samples: Sequence[Sample]) -> torch.Tensor:
    """The gradients of every B, one forward and backward a sample: (n, d). No sketch, in the loop's favour."""
    found = []
    for sample in samples:
        training_steps(adapted.model, [sample], 1)
        gradients = [adapter.up.grad for adapter in adapted.adapters.values()]
        found.append(torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]))
        for adapter in adapted.adapters.values():
            adapter.up.grad = adapter.down.grad = None
    return torch.stack(found)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratios(ours: Callable[[], object], theirs: Callable[[], object], turns: int) -> tuple[float, float, float]:
    """Median over the turns of their time over ours, and the two median times in seconds."""
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(turns)]
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    return statistics.median(there / here for here, there in pairs), mine, other


def measured(name: str, value: float, *, target: float | None, baseline: str) -> BenchRow:
    """A ratio, larger is better, with the versions that it was measured with."""
    return BenchRow(
        name=name,
        value=round(value, 3),
        unit="x",
        target=target,
        baseline=f"{baseline}; {torch.get_num_threads()} threads",
        versions={**versions(), "transformers": version("transformers")},
    )


def smollm2_rows(*, quick: bool) -> list[BenchRow]:
    model = load_model(smollm2_directory(), dtype="float32", device=CPU)
    samples = corpus(model.tokenizer, 16 if quick else 48, max_length=256)
    engine = GradientEngine(model, GradientConfig(rank=RANK, token_budget=1024))
    adapted = Adapted.of(model.model)

    ordered = sorted(samples, key=lambda sample: sample.tokens)

    def train() -> None:
        with adapted:
            training_steps(adapted.model, samples)

    def train_ordered() -> None:
        with adapted:
            training_steps(adapted.model, ordered)

    tokens = sum(sample.tokens for sample in samples)
    engine.sketch(samples[: TRAINING_ROWS * 2])
    turns = 1 if quick else 3
    ratio, ours, theirs = ratios(lambda: engine.sketch(samples), train, turns)
    ordered_ratio, _, ordered_s = ratios(lambda: engine.sketch(samples), train_ordered, turns)
    responses = sum(sample.loss_tokens for sample in samples) / tokens
    return [
        measured(
            "gradients/vs_training_step_smollm2",
            ratio,
            target=1.0,
            baseline=f"LoRA r={RANK} training step, {TRAINING_ROWS} rows a batch, all logits, no optimizer: "
            f"{tokens / theirs:.0f} tokens/s; ours {tokens / ours:.0f} tokens/s; {len(samples)} rows, {tokens} tokens, "
            f"{responses:.0%} of them responses",
        ),
        measured(
            "gradients/vs_training_step_ordered_smollm2",
            ordered_ratio,
            target=1.0,
            baseline=f"the same step over rows ordered by length, so with as little padding as ours: "
            f"{tokens / ordered_s:.0f} tokens/s",
        ),
    ]


def tiny_llama() -> ProxyModel:
    """A random Llama so small that the overhead of a call rules, as it does on a GPU."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(requires_grad=False)
    return ProxyModel(model=model, tokenizer=None, revision="random", path=Path())  # type: ignore[arg-type]


def vmap_gradients(adapted: Adapted) -> Callable[[Sequence[Sample]], None]:
    """Per-sample gradients by torch.func: vmap over grad, 32 rows of like length at a time."""
    model = adapted.model
    ups = {name: value.detach() for name, value in model.named_parameters() if name.endswith(".up")}
    others = {name: value.detach() for name, value in model.named_parameters() if not name.endswith(".up")}

    def loss(trained: dict[str, torch.Tensor], ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": ids.unsqueeze(0), "use_cache": False}
        logits = functional_call(model, {**others, **trained}, kwargs=inputs).logits[0, :-1]
        return nn.functional.cross_entropy(logits, labels[1:], ignore_index=IGNORED, reduction="sum")

    each = vmap(grad(loss), in_dims=(None, 0, 0))

    def run(samples: Sequence[Sample]) -> None:
        ordered = sorted(samples, key=lambda sample: sample.tokens)
        for start in range(0, len(ordered), VMAP_ROWS):
            batch = training_batch(ordered[start : start + VMAP_ROWS])
            each(ups, batch["input_ids"], batch["labels"])

    return run


def random_samples(count: int) -> list[Sample]:
    random = np.random.Generator(np.random.PCG64(0))
    lengths = random.integers(16, 49, count)
    return [
        Sample(number, random.integers(3, 512, length).astype(np.int32), np.arange(length) >= length // 2)
        for number, length in enumerate(lengths)
    ]


def tiny_rows(*, quick: bool) -> list[BenchRow]:
    model, samples = tiny_llama(), random_samples(64 if quick else 256)
    engine = GradientEngine(model, GradientConfig(rank=RANK, sketch_dim=1024, token_budget=2048))
    adapted = Adapted.of(model.model)

    def loop() -> None:
        with adapted:
            one_at_a_time(adapted, samples)

    def vmapped() -> None:
        # Eager attention: under vmap the fused one falls back to a loop.
        model.model.set_attn_implementation("eager")
        with adapted:
            vmap_gradients(adapted)(samples)
        model.model.set_attn_implementation("sdpa")

    engine.sketch(samples)
    turns = 3 if quick else 7
    ratio, ours, theirs = ratios(lambda: engine.sketch(samples), loop, turns)
    vmap_ratio, _, vmap_s = ratios(lambda: engine.sketch(samples), vmapped, turns)
    return [
        measured(
            "gradients/vs_loop_tiny",
            ratio,
            target=4.0,
            baseline=f"autograd one sample at a time, no sketch: {len(samples) / theirs:.0f} samples/s; ours with "
            f"sketch {len(samples) / ours:.0f} samples/s; {len(samples)} rows of 16 to 48 tokens",
        ),
        measured(
            "gradients/vs_vmap_tiny",
            vmap_ratio,
            target=1.0,
            baseline=f"torch.func.vmap over grad, {VMAP_ROWS} rows of like length a batch, no sketch: "
            f"{len(samples) / vmap_s:.0f} samples/s",
        ),
    ]


def peer_rows(*, quick: bool) -> list[BenchRow]:
    """Against public packages, the same gradients on both sides: full ones for bergson, a fresh B's for traker."""
    model, samples = tiny_llama(), random_samples(64 if quick else 256)
    turns = 3 if quick else 7
    linear = GradientEngine(model, GradientConfig(target="linear", sketch_dim=1024, token_budget=2048))
    lora = GradientEngine(model, GradientConfig(rank=RANK, sketch_dim=1024, token_budget=2048))
    bergson = Bergson(model.model, token_budget=2048)
    bergson(samples)
    linear.sketch(samples)
    bergson_ratio, linear_s, bergson_s = ratios(lambda: linear.sketch(samples), lambda: bergson(samples), turns)
    ordered = sorted(samples, key=lambda sample: sample.tokens)
    batches = [training_batch(ordered[start : start + VMAP_ROWS]) for start in range(0, len(ordered), VMAP_ROWS)]
    adapted = Adapted.of(model.model)

    def traked() -> None:
        model.model.set_attn_implementation("eager")  # as for vmap
        with adapted:
            names = [name for name, _ in model.model.named_parameters() if name.endswith(".up")]
            Trak(model.model, names, dim=1024)(batches)
        model.model.set_attn_implementation("sdpa")

    trak_ratio, lora_s, trak_s = ratios(lambda: lora.sketch(samples), traked, turns)
    return [
        measured(
            "gradients/vs_bergson_tiny",
            bergson_ratio,
            target=None,
            baseline=f"bergson {version('bergson')}, in memory, 16 x 16 a layer: {len(samples) / bergson_s:.0f} "
            f"samples/s; ours, target linear, p = 1024: {len(samples) / linear_s:.0f} samples/s; {len(samples)} rows",
        ),
        measured(
            "gradients/vs_traker_tiny",
            trak_ratio,
            target=None,
            baseline=f"traker {version('traker')}, {VMAP_ROWS} rows of like length a batch, BasicProjector, p = 1024: "
            f"{len(samples) / trak_s:.0f} samples/s; ours, LoRA, p = 1024: {len(samples) / lora_s:.0f} samples/s",
        ),
    ]


def rows(quick: bool = False) -> list[BenchRow]:
    """Every row of this file; `quick` takes fewer rows and turns."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        return [
            *tiny_rows(quick=quick),
            *peer_rows(quick=quick),
            *smollm2_rows(quick=quick),
            gradients_memory.row(quick=quick),
            growing.row(quick=quick),
        ]
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true")
    for line in rows(quick=arguments.parse_args().quick):
        print(line)
