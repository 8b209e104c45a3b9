"""The checks of `benchmarks.gpu`: each gives figures, with a bound where there is one to keep."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gradients_corpus import corpus
from benchmarks.smollm2 import smollm2_directory
from benchmarks.training_step import RANK, Adapted, training_steps
from workers.data.samples import Sample
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.models.files import ModelFiles
from workers.models.memory import Work, memory_of
from workers.models.proxy import ProxyModel, load_model
from workers.selection import Selection, SelectionCancelledError, SelectionConfig, select

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from workers.gradients.engine import Sketches

CPU = torch.device("cpu")
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
    | {"num_attention_heads": 4, "num_key_value_heads": 2},
    "1b": {"vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    | {"num_attention_heads": 32, "num_key_value_heads": 8},
    "7b": {"vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32}
    | {"num_attention_heads": 32, "num_key_value_heads": 32},
}
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Operations a second in bfloat16, dense, by the makers' data sheets; by a part of the card's name, first match."""
PASSES = 4
"""Operations for each weight and token: two forward, two backward; no gradient of a weight is made."""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    about: str
    bound: float | None = None
    larger_is_better: bool = False

    @property
    def holds(self) -> bool:
        """Whether the value keeps its bound."""
        if self.bound is None:
            return True
        return self.value >= self.bound if self.larger_is_better else self.value <= self.bound


class Bench:
    """Where the checks run, and what they share."""

    def __init__(self, device: torch.device, *, quick: bool, until: float) -> None:
        """Nothing is loaded yet.

        Args:
            device: The device.
            quick: Tiny sizes.
            until: When all should be over, by `time.monotonic`.
        """
        self.device, self.quick, self.until = device, quick, until
        self.rows = 12 if quick else 96
        self.turns = 1 if quick else 3
        self.config = GradientConfig(rank=RANK, sketch_dim=256 if quick else 2048, token_budget=256 if quick else 8192)
        self._cpu: Sketches | None = None

    def small(self, dtype: str, device: torch.device) -> ProxyModel:
        """SmolLM2-135M; for the rehearsal a random model that takes no time."""
        if self.quick:
            return random_llama("tiny", getattr(torch, dtype), device)
        return load_model(smollm2_directory(), dtype=dtype, device=device)

    def samples(self, model: ProxyModel, rows: int | None = None) -> list[Sample]:
        """Rows for a model: real ones for its tokenizer, else random ones."""
        count = rows or self.rows
        if model.tokenizer is not None:
            return corpus(model.tokenizer, count, max_length=256)
        random = np.random.default_rng(0)
        lengths = random.integers(8, 24 if self.quick else 512, count)
        return [
            Sample(row, random.integers(3, 512, length).astype(np.int32), np.arange(length) >= length // 2)
            for row, length in enumerate(lengths)
        ]

    def reference(self) -> Sketches:
        """The sketches of the small model in float32 on the CPU."""
        if self._cpu is None:
            model = self.small("float32", CPU)
            self._cpu = GradientEngine(model, self.config).sketch(self.samples(model))
        return self._cpu

    def seconds(self, work: Callable[[], object]) -> float:
        """Median time of some turns, the device waited for."""
        found = []
        for _ in range(self.turns):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - began)
        return statistics.median(found)

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        """Give memory back between two checks."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def random_llama(shape: str, dtype: torch.dtype, device: torch.device) -> ProxyModel:
    """A Llama of a shape with random weights, made where it runs."""
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = LlamaForCausalLM._from_config(LlamaConfig(**SHAPES[shape]), dtype=dtype)  # noqa: SLF001
    model.eval().requires_grad_(requires_grad=False)
    return ProxyModel(model=model, tokenizer=None, revision="random", path=Path())  # type: ignore[arg-type]


def precision(bench: Bench) -> list[Figure]:
    """Sketches of the device against those of the CPU: rows, inner products, picks."""
    expected, found = bench.reference().values, []
    budget = max(1, len(expected) // 4)
    picks = set(select(expected, SelectionConfig(budget=budget)).indices.tolist())
    for dtype, bound in (("float32", 1e-2), ("bfloat16", 0.2)):
        model = bench.small(dtype, bench.device)
        values = GradientEngine(model, bench.config).sketch(bench.samples(model)).values
        same = picks & set(select(values, SelectionConfig(budget=budget)).indices.tolist())
        about = f"{dtype} on the device against float32 on the CPU, {len(values)} rows"
        found += [
            Figure(f"precision/rows_{dtype}", row_error(values, expected), "", f"largest of a row, {about}", bound),
            Figure(
                f"precision/cosines_{dtype}", cosine_error(values, expected), "", f"largest of a pair, {about}", bound
            ),
            Figure(f"precision/picks_{dtype}", len(same) / budget, "", f"share of {budget} picks in common, {about}"),
        ]
    return found


def determinism(bench: Bench) -> list[Figure]:
    """Two runs on the device, bit for bit."""
    found = []
    for dtype in ("float32", "bfloat16"):
        model = bench.small(dtype, bench.device)
        samples = bench.samples(model)
        first, second = (GradientEngine(model, bench.config).sketch(samples).values for _ in range(2))
        equal = float(np.array_equal(first, second))
        found.append(
            Figure(f"determinism/{dtype}", equal, "", "1: two engines give the same bits", 1.0, larger_is_better=True)
        )
    return found


def independence(bench: Bench) -> list[Figure]:
    """What its neighbours in a batch do to a row."""
    found = []
    for dtype, bound in (("float32", 1e-3), ("bfloat16", 1e-2)):
        model = bench.small(dtype, bench.device)
        samples = bench.samples(model, 8)
        engine = GradientEngine(model, bench.config)
        alone = np.concatenate([engine.sketch([sample]).values for sample in samples])
        error = row_error(engine.sketch(samples).values, alone)
        found.append(Figure(f"independence/{dtype}", error, "", "a row in a batch against the row alone", bound))
    return found


def speed(bench: Bench) -> list[Figure]:
    """Tokens a second against a training step, share of the peak, peak memory against the estimate."""
    shapes = ("tiny",) if bench.quick else ("smollm2", "1b", "7b")
    found: list[Figure] = []
    for shape in shapes:
        dtype = torch.bfloat16
        model = (
            bench.small("bfloat16", bench.device) if shape == "smollm2" else random_llama(shape, dtype, bench.device)
        )
        found += _speed_of(bench, shape, model)
        del model
        bench.release()
    return found


def _speed_of(bench: Bench, shape: str, model: ProxyModel) -> list[Figure]:
    samples = bench.samples(model)
    tokens = sum(sample.tokens for sample in samples)
    engine = GradientEngine(model, bench.config)
    engine.sketch(samples[:4])
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    ours = tokens / bench.seconds(lambda: engine.sketch(samples))
    figures = [
        Figure(f"speed/{shape}", ours, "tokens/s", f"sketches, bfloat16, {len(samples)} rows, {tokens:,} tokens")
    ]
    figures += _memory_of(bench, shape, model, samples)
    adapted = Adapted.of(model.model)
    with adapted:
        training_steps(model.model, samples[:8])
        step = tokens / bench.seconds(lambda: training_steps(model.model, samples))
    about = f"against a plain LoRA step of 8 rows, no optimizer: {step:,.0f} tokens/s"
    figures.append(Figure(f"speed/{shape}_vs_training_step", ours / step, "x", about, larger_is_better=True))
    figures += _utilisation(bench, shape, model, ours)
    return [*figures, *_bergson(bench, shape, model, samples, ours, tokens)]


def _utilisation(bench: Bench, shape: str, model: ProxyModel, tokens_s: float) -> list[Figure]:
    name = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else ""
    peak = next((peak for part, peak in PEAKS.items() if part in name), None)
    if peak is None:
        return []
    weights = sum(one.numel() for one in model.model.parameters()) - model.model.get_input_embeddings().weight.numel()
    share = PASSES * weights * tokens_s / peak
    return [Figure(f"speed/{shape}_mfu", share, "", f"{PASSES} operations a weight and token of {peak:.3g} a second")]


def _memory_of(bench: Bench, shape: str, model: ProxyModel, samples: Sequence[Sample]) -> list[Figure]:
    if bench.device.type != "cuda":
        return []
    peak = torch.cuda.max_memory_allocated(bench.device)
    work = Work(max(sample.tokens for sample in samples), len(samples), bench.config.sketch_dim)
    estimate = memory_of(model.model, ModelFiles(Path(), (), ()), model.model.dtype, work)
    total = estimate.total(bench.config.token_budget)
    about = f"estimate {total / 2**30:.2f} GiB over the peak of {peak / 2**30:.2f} GiB"
    return [Figure(f"memory/{shape}_estimate", total / peak, "x", about, 1.0, larger_is_better=True)]


def _bergson(
    bench: Bench, shape: str, model: ProxyModel, samples: Sequence[Sample], ours: float, tokens: int
) -> list[Figure]:
    try:
        from benchmarks.gradients_peers import Bergson  # noqa: PLC0415 - an optional peer
    except ImportError:
        return []
    bergson = Bergson(model.model, bench.config.token_budget)
    bergson(samples[:4])
    theirs = tokens / bench.seconds(lambda: bergson(samples))
    return [Figure(f"speed/{shape}_vs_bergson", ours / theirs, "x", f"bergson: {theirs:,.0f} tokens/s")]


def out_of_memory(bench: Bench) -> list[Figure]:
    """With a batch that the card cannot hold, the budget is halved and the sketches stay what they are."""
    model = bench.small("float32", bench.device)
    samples = bench.samples(model)
    expected = GradientEngine(model, bench.config).sketch(samples).values
    large = GradientConfig(rank=RANK, sketch_dim=bench.config.sketch_dim, token_budget=1 << 22)
    engine = GradientEngine(model, large)
    if bench.device.type == "cuda":
        bench.release()
        free, total = torch.cuda.mem_get_info(bench.device)
        held = torch.cuda.memory_allocated(bench.device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, (held + free // 64) / total), bench.device)
    try:
        found = engine.sketch(samples).values
    finally:
        if bench.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, bench.device)
    figures = [Figure("memory/halved_rows", row_error(found, expected), "", "against a budget that fits", 1e-3)]
    if bench.device.type == "cuda":
        about = f"tokens of a batch in the end, of {large.token_budget:,} asked for, with little memory left"
        figures.append(
            Figure("memory/halved_to", float(engine.token_budget), "tokens", about, large.token_budget - 1.0)
        )
    return figures


def selection(bench: Bench) -> list[Figure]:
    """The greedy on the device against the CPU's, at full size; the CPU is stopped when time is up."""
    n, p, k = (2000, 64, 100) if bench.quick else (200_000, 2048, 10_000)
    values = torch.randn(n, p, generator=torch.Generator().manual_seed(0))
    config = SelectionConfig(budget=k, device=str(bench.device))
    began = time.perf_counter()
    found = select(values, config)
    ours = time.perf_counter() - began
    about = f"n={n:,} p={p:,} k={k:,}, Gaussian, whole call"
    figures = [Figure("selection/device", ours, "s", about)]
    picked = 0

    def count(progress: object) -> None:
        nonlocal picked
        picked = max(picked, getattr(progress, "done", 0))

    began = time.perf_counter()
    try:
        on_cpu: Selection | None = select(
            values,
            SelectionConfig(budget=k, device="cpu"),
            on_progress=count,
            should_stop=lambda: time.monotonic() > bench.until,
        )
    except SelectionCancelledError:
        on_cpu = None
    theirs = time.perf_counter() - began
    if on_cpu is None:
        return [*figures, Figure("selection/cpu", theirs, "s", f"stopped after {picked:,} of {k:,}, no time was left")]
    same = float((found.indices == on_cpu.indices).mean())
    return [
        *figures,
        Figure("selection/vs_cpu", theirs / ours, "x", f"the CPU's {theirs:.1f} s; {about}"),
        Figure("selection/same_picks", same, "", "share of picks in the same place", 0.99, larger_is_better=True),
    ]


def two_workers(bench: Bench) -> list[Figure]:
    """Two processes on one card against one."""
    one, two = (_together(bench, count) for count in (1, 2))
    return [Figure("workers/two_vs_one", two / one, "x", f"tokens a second of both together; one: {one:,.0f}")]


def _together(bench: Bench, count: int) -> float:
    """Tokens a second of some processes that sketch at once."""
    command = [sys.executable, "-m", "benchmarks.gpu_checks", str(bench.device), str(int(bench.quick))]
    begun = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    outputs = [process.communicate()[0] for process in begun]
    if any(process.returncode for process in begun):
        raise RuntimeError(f"a process of {count} ended with {[process.returncode for process in begun]}")
    spans = [tuple(map(float, output.split()[-3:])) for output in outputs]
    return sum(tokens for _, _, tokens in spans) / (
        max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
    )


def spread(bench: Bench) -> list[Figure]:
    """A model over two cards against one, where there are two."""
    if bench.device.type != "cuda" or torch.cuda.device_count() < 2 or bench.quick:
        return []
    further = [torch.device("cuda", 1 - (bench.device.index or 0))]
    apart = load_model(smollm2_directory(), dtype="float32", device=bench.device, further=further)
    found = GradientEngine(apart, bench.config).sketch(bench.samples(apart)).values
    return [Figure("spread/rows", row_error(found, bench.reference().values), "", "two cards against the CPU", 1e-2)]


CHECKS: dict[str, Callable[[Bench], list[Figure]]] = {
    "precision": precision,
    "determinism": determinism,
    "independence": independence,
    "speed": speed,
    "out_of_memory": out_of_memory,
    "two_workers": two_workers,
    "spread": spread,
    "selection": selection,
}
"""By name, in the order in which they run: the longest is the last."""


def row_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference of a row, relative to the row's length."""
    lengths = np.linalg.norm(expected, axis=1)
    return float((np.linalg.norm(found - expected, axis=1) / np.maximum(lengths, 1e-30)).max())


def cosine_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference of a pair's cosine."""
    grams = [unit @ unit.T for unit in (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (found, expected))]
    return float(np.abs(grams[0] - grams[1]).max())


def _one_worker(device: str, *, quick: bool) -> None:
    """Sketch for a while, and print when it began and ended (seconds since 1970) and how many tokens it was."""
    bench = Bench(torch.device(device), quick=quick, until=float("inf"))
    model = bench.small("bfloat16", bench.device)
    samples = bench.samples(model)
    engine = GradientEngine(model, bench.config)
    engine.sketch(samples[:4])
    bench.wait()
    began, rounds = time.time(), 1 if quick else 10
    for _ in range(rounds):
        engine.sketch(samples)
    bench.wait()
    print(began, time.time(), rounds * sum(sample.tokens for sample in samples))


if __name__ == "__main__":
    _one_worker(sys.argv[1], quick=sys.argv[2] == "1")
