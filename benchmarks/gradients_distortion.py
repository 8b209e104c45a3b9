"""What sketching costs in accuracy: inner products and picks from sketches against those from whole gradients.

    python -m benchmarks.gradients_distortion

Prints the table of docs/gradients.md; `make bench` runs it. The whole gradients of the adapter are computed once and
projected as the engine does it; the selection from whole gradients works on coordinates with the same inner products.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch

from benchmarks.gradients_corpus import corpus
from benchmarks.row import BenchRow
from benchmarks.smollm2 import smollm2_directory
from workers.gradients.config import GradientConfig, SketchKind
from workers.gradients.engine import GradientEngine
from workers.gradients.sketch import layer_folds, layer_sketch
from workers.models.layers import linear_map
from workers.models.proxy import ProxyModel, load_model
from workers.selection import SelectionConfig, select

if TYPE_CHECKING:
    from workers.data.samples import Sample

ROWS, PICKS = 96, 24
DIMENSIONS = (256, 512, 1024, 2048, 4096, 8192)
SEEDS = range(3)
KINDS: tuple[SketchKind, ...] = ("sparse", "factorised")


def projected(model: ProxyModel, whole: dict[str, torch.Tensor], config: GradientConfig) -> torch.Tensor:
    """The sketches that the engine would give, (n, p)."""
    total = torch.zeros(ROWS, config.sketch_dim)
    for name, gradient in whole.items():
        linear = linear_map(model.model.get_submodule(name))
        assert linear is not None
        ((part, fold),) = layer_folds(name, linear, config, sketched=True).items()
        folded = fold.outputs(gradient.transpose(1, 2)).transpose(1, 2)
        total += layer_sketch(part, fold, config, linear.device).flatten(folded.flatten(1))
    return total


def picks(vectors: torch.Tensor) -> set[int]:
    return set(select(vectors.float().numpy(), SelectionConfig(budget=PICKS)).indices.tolist())


def coordinates(gram: torch.Tensor) -> torch.Tensor:
    """Vectors with these inner products, (n, n)."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp_min(0).sqrt()


def measured(kind: SketchKind, dim: int, model: ProxyModel, whole: dict[str, torch.Tensor]) -> tuple[float, ...]:
    """Root mean square error of cosines and of norms, and the part of the picks that are those of whole gradients."""
    gram = sum((layer.flatten(1).double() @ layer.flatten(1).double().T for layer in whole.values()), torch.zeros(()))
    length = gram.diagonal().sqrt()
    truth = picks(coordinates(gram))
    pairs = torch.triu(torch.ones_like(gram), 1).bool()
    cosine, norm, shared = [], [], []
    for seed in SEEDS:
        # The adapter's seed stays, so that only the projection differs between the runs.
        z = projected(model, whole, GradientConfig(sketch=kind, sketch_dim=dim, seed=seed)).double()
        error = (z @ z.T - gram) / torch.outer(length, length)
        cosine.append(error[pairs].square().mean())
        norm.append((z.norm(dim=1) / length - 1).square().mean())
        shared.append(len(picks(z) & truth) / PICKS)
    rms = [float(torch.stack(values).mean().sqrt()) for values in (cosine, norm)]
    return (*rms, sum(shared) / len(shared))


def rows(*, quick: bool = False) -> list[BenchRow]:
    """Prints the table; the rows are the default's length, the error of cosines by kind, and the kinds' speed."""
    model = load_model(smollm2_directory(), dtype="float32", device=torch.device("cpu"))
    samples = corpus(model.tokenizer, ROWS, max_length=160)
    whole = GradientEngine(model, GradientConfig()).gradients(samples)
    default = GradientConfig().sketch_dim
    found: dict[SketchKind, tuple[float, ...]] = {}
    print("| p | kind | cosine error, rms | norm error, rms | picks shared |\n|---|---|---|---|---|")
    for dim in (default,) if quick else DIMENSIONS:
        for kind in KINDS:
            cosine, norm, shared = figures = measured(kind, dim, model, whole)
            print(f"| {dim} | {kind} | {cosine:.4f} | {norm:.4f} | {shared:.0%} |", flush=True)
            if dim == default:
                found[kind] = figures
    about = f"p = {default}, SmolLM2-135M, LoRA, {ROWS} real rows, {PICKS} picks, {len(SEEDS)} seeds"
    few = samples[: 8 if quick else 24]
    engines = {kind: GradientEngine(model, GradientConfig(sketch=kind, token_budget=1024)) for kind in KINDS}
    seconds = {kind: statistics.median(_seconds(engine, few) for _ in range(3)) for kind, engine in engines.items()}
    return [
        BenchRow(
            name="gradients/cosine_error_of_sparse",
            value=round(found["sparse"][0], 4),
            unit="rms",
            target=None,
            baseline=f"factorised: {found['factorised'][0]:.4f}; the law 1/sqrt(p): {default**-0.5:.4f}; {about}",
        ),
        BenchRow(
            name="gradients/picks_shared_with_whole_gradients",
            value=round(found["sparse"][2], 3),
            unit="of 1",
            target=None,
            baseline=f"sketch sparse; factorised: {found['factorised'][2]:.3f}; random sets: {PICKS / ROWS:.2f}; "
            f"{about}",
        ),
        BenchRow(
            name="gradients/sparse_vs_factorised_lora",
            value=round(seconds["factorised"] / seconds["sparse"], 3),
            unit="x",
            target=None,
            baseline=f"time of the same {len(few)} rows with sketch factorised: {seconds['factorised']:.1f} s",
        ),
    ]


def _seconds(engine: GradientEngine, samples: list[Sample]) -> float:
    began = time.perf_counter()
    engine.sketch(samples)
    return time.perf_counter() - began


if __name__ == "__main__":
    rows()
