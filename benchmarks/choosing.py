"""Sweeps over the settings of a selection, on the gradients of the demo: the tables of docs/choosing.md.

    make demo && python -m benchmarks.choosing

Reads the sketches that the demo has left in `var/artifacts`: of 320 rows, by SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file

from workers.selection import SelectionConfig, select
from workers.selection.compare import jaccard

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from workers.selection import Selection

SKETCHES = Path("var/artifacts/sketches")
BUDGET = 32
PENALTIES = (0.0, 0.1, 0.3, 0.5, 1.0, 3.0)
RATIOS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
SCALES = (0.01, 0.1, 1.0, 10.0, 100.0)
DIMENSIONS = (64, 128, 256, 512, 1024)
SEEDS = range(5)
FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.8)


def demo_sketches() -> NDArray[np.float32]:
    """The demo's sketches, shape (320, 2048): the largest set there is.

    Raises:
        SystemExit: The demo has not been run here.
    """
    sets = [sorted(path.glob("shard-*.safetensors")) for path in SKETCHES.glob("*")]
    matrices = [np.concatenate([load_file(shard)["values"] for shard in shards]) for shards in sets if shards]
    if not matrices:
        sys.exit(f"{SKETCHES} holds no sketches: run `make demo` first")
    return max(matrices, key=len).astype(np.float32)


def table(headings: str, rows: Iterable[Iterable[object]]) -> None:
    """Print a table of Markdown."""
    print(f"\n| {headings} |\n|{'---|' * (headings.count('|') + 1)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def certificate(selection: Selection) -> str:
    value = selection.certificate
    return "-" if value is None else f"{value:.3f}"


def sweep_penalty(sketches: NDArray[np.float32], budget: int) -> Iterable[tuple[object, ...]]:
    free = select(sketches, SelectionConfig(budget=budget, conflict_penalty=0.0))
    for penalty in PENALTIES:
        one = select(sketches, SelectionConfig(budget=budget, conflict_penalty=penalty))
        lost = 1 - one.log_det[-1] / free.log_det[-1]
        yield (
            penalty,
            f"{one.log_det[-1]:.2f}",
            f"{lost:.2%}",
            f"{one.conflicts.mean():.4f}",
            f"{(one.conflicts > 0).mean():.0%}",
            f"{jaccard(one.indices, free.indices):.0%}",
        )


def sweep_ratio(sketches: NDArray[np.float32]) -> Iterable[tuple[object, ...]]:
    whole = select(sketches, SelectionConfig(budget=len(sketches)))
    for ratio in RATIOS:
        one = select(sketches, SelectionConfig(budget=len(sketches), early_stop_ratio=ratio))
        kept = len(one.indices)
        yield ratio, kept, f"{kept / len(sketches):.0%}", f"{one.log_det[-1] / whole.log_det[-1]:.0%}", certificate(one)


def sweep_alpha(sketches: NDArray[np.float32]) -> Iterable[tuple[object, ...]]:
    auto = select(sketches, SelectionConfig(budget=BUDGET))
    for scale in SCALES:
        one = select(sketches, SelectionConfig(budget=BUDGET, alpha=auto.alpha * scale))
        norms = np.linalg.norm(sketches[one.indices], axis=1).mean() / np.median(np.linalg.norm(sketches, axis=1))
        yield (
            f"{scale:g} x auto",
            f"{one.log_det[-1]:.2f}",
            certificate(one),
            f"{one.marginal_gains[-1] / one.marginal_gains[0]:.2f}",
            f"{norms:.2f}",
            f"{jaccard(one.indices, auto.indices):.0%}",
        )


def sweep_dimension(sketches: NDArray[np.float32]) -> Iterable[tuple[object, ...]]:
    full = select(sketches, SelectionConfig(budget=BUDGET))
    for dimension in DIMENSIONS:
        shared, held = [], []
        for seed in SEEDS:
            random = np.random.default_rng(seed).standard_normal((sketches.shape[1], dimension)).astype(np.float32)
            one = select(sketches @ random / np.sqrt(dimension), SelectionConfig(budget=BUDGET))
            shared.append(len(set(one.indices.tolist()) & set(full.indices.tolist())) / BUDGET)
            held.append(information(sketches[one.indices], full.alpha) / full.log_det[-1])
        yield dimension, f"{np.mean(shared):.0%}", f"{np.mean(held):.1%}", f"{min(held):.1%}"


def sweep_budget(sketches: NDArray[np.float32]) -> Iterable[tuple[object, ...]]:
    for fraction in FRACTIONS:
        budget = round(fraction * len(sketches))
        one = select(sketches, SelectionConfig(budget=budget))
        random = [select(sketches, SelectionConfig(budget=budget, method="random", seed=seed)) for seed in SEEDS]
        mean = np.mean([run.log_det[-1] for run in random])
        yield f"{fraction:.0%}", budget, f"{one.log_det[-1]:.1f}", f"{mean:.1f}", certificate(one)


def information(vectors: NDArray[np.float32], alpha: float) -> float:
    """F of a set, in nats."""
    wide = vectors.astype(np.float64)
    return float(np.linalg.slogdet(np.eye(len(wide)) + alpha * wide @ wide.T)[1])


def main() -> None:
    sketches = demo_sketches()
    cosines = sketches / np.linalg.norm(sketches, axis=1, keepdims=True)
    off = (cosines @ cosines.T)[~np.eye(len(cosines), dtype=bool)]
    print(
        f"{len(sketches)} rows, p = {sketches.shape[1]}; cosines: mean {off.mean():.3f}, {(off < 0).mean():.1%} below 0"
    )
    for budget in (BUDGET, len(sketches) // 2):
        print(f"\nconflict_penalty, {budget} picks")
        table(
            "lambda | log det, nats | lost | mean conflict | picks in conflict | shared with 0",
            sweep_penalty(sketches, budget),
        )
    print("\nearly_stop_ratio")
    table("omega | picks | of the rows | of the information of all | certificate", sweep_ratio(sketches))
    print(f"\nalpha, {BUDGET} picks")
    table(
        "alpha | log det, nats | certificate | last gain over first | norm of picks over median | shared",
        sweep_alpha(sketches),
    )
    print(f"\nsketch_dim, {BUDGET} picks")
    table("p | picks shared with 2048 | information held, mean | worst of 5", sweep_dimension(sketches))
    print("\nbudget")
    table("fraction | picks | log det, nats | random | certificate", sweep_budget(sketches))


if __name__ == "__main__":
    main()
