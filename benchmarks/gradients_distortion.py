"""What sketching costs in accuracy: inner products and picks from sketches against those from whole gradients.

    python -m benchmarks.gradients_distortion

Prints the table of docs/gradients.md. The whole gradients of the adapter are computed once and projected as the engine
does it; the selection from whole gradients works on coordinates with the same inner products.
"""

from __future__ import annotations

import torch

from benchmarks.gradients_corpus import corpus
from benchmarks.smollm2 import smollm2_directory
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.gradients.model import ProxyModel, load_model
from workers.gradients.sketch import layer_folds, layer_sketch
from workers.selection import SelectionConfig, select

ROWS, PICKS = 96, 24
DIMENSIONS = (256, 512, 1024, 2048, 4096, 8192)
SEEDS = range(3)


def projected(model: ProxyModel, whole: dict[str, torch.Tensor], config: GradientConfig) -> torch.Tensor:
    """The sketches that the engine would give, (n, p)."""
    total = torch.zeros(ROWS, config.sketch_dim)
    for name, gradient in whole.items():
        weight = model.model.get_submodule(name).weight
        ((part, fold),) = layer_folds(name, weight, config, sketched=True).items()
        folded = fold.outputs(gradient.transpose(1, 2)).transpose(1, 2)
        total += layer_sketch(part, fold, config, weight.device).flatten(folded.flatten(1))
    return total


def picks(vectors: torch.Tensor) -> set[int]:
    return set(select(vectors.float().numpy(), SelectionConfig(budget=PICKS)).indices.tolist())


def coordinates(gram: torch.Tensor) -> torch.Tensor:
    """Vectors with these inner products, (n, n)."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp_min(0).sqrt()


def main() -> None:
    model = load_model(smollm2_directory(), dtype="float32", device=torch.device("cpu"))
    samples = corpus(model.tokenizer, ROWS, max_length=160)
    whole = GradientEngine(model, GradientConfig()).gradients(samples)
    gram = sum((layer.flatten(1).double() @ layer.flatten(1).double().T for layer in whole.values()), torch.zeros(()))
    length = gram.diagonal().sqrt()
    truth = picks(coordinates(gram))
    pairs = torch.triu(torch.ones_like(gram), 1).bool()
    print("| p | kind | cosine error, rms | norm error, rms | picks shared |\n|---|---|---|---|---|")
    for dim in DIMENSIONS:
        for kind in ("sparse", "factorised"):
            cosine, norm, shared = [], [], []
            for seed in SEEDS:
                # The adapter's seed stays, so that only the projection differs between the runs.
                config = GradientConfig(sketch=kind, sketch_dim=dim, seed=seed)  # type: ignore[arg-type]
                z = projected(model, whole, config).double()
                error = (z @ z.T - gram) / torch.outer(length, length)
                cosine.append(error[pairs].square().mean())
                norm.append((z.norm(dim=1) / length - 1).square().mean())
                shared.append(len(picks(z) & truth) / PICKS)
            rms = [float(torch.stack(values).mean().sqrt()) for values in (cosine, norm)]
            print(f"| {dim} | {kind} | {rms[0]:.4f} | {rms[1]:.4f} | {sum(shared) / len(shared):.0%} |", flush=True)


if __name__ == "__main__":
    main()
