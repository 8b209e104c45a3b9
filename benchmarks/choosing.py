"""Sweeps over the settings of a selection, on the gradients of the demo: the tables of docs/choosing.md.

    make demo && python -m benchmarks.choosing

Reads the sketches that the demo has left in `var/artifacts`: of 320 rows, by SmolLM2-135M-Instruct. All but the first
sweep select from what the default selects from: gradients of length one, under the metric of the candidates themselves,
of the rows that the default filter leaves.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file

from app.core.contracts.selection_request import REPRESENTATIVE, SelectionSpec
from workers.selection import SelectionConfig, select
from workers.selection.compare import jaccard
from workers.stages.candidates import left_out, staying
from workers.stages.limits import Membership
from workers.stages.objective import turned
from workers.stages.purposes import own_metric
from workers.statistics.row_figures import kept_and_scaled, length_factors, row_figures
from workers.statistics.suspects import suspicion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from workers.selection import Selection
    from workers.statistics.row_figures import RowFigures

SKETCHES = Path("var/artifacts/sketches")
BUDGET = 32
LENGTHS: dict[str, dict[str, object]] = {
    "the default": {},
    "`unit`, default filter, `representative` 0": {"representative": 0},
    "`unit`, no filter": {"filters": {}},
    "`clip`, no filter": {"normalize": "clip", "filters": {}},
    "`none`, no filter (the paper's)": {"normalize": "none", "filters": {}},
}
PENALTIES = (0.0, 0.1, 0.3, 0.5, 1.0, 3.0)
RATIOS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
SCALES = (0.01, 0.1, 1.0, 10.0, 100.0)
DIMENSIONS = (64, 128, 256, 512, 1024)
SEEDS = range(5)
FRACTIONS = (0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The demo's rows as they are stored.

    Attributes:
        values: Sketches, (n, p), float32.
        figures: Of each row.
    """

    values: NDArray[np.float32]
    figures: RowFigures

    def candidates(self, **selection: object) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Which rows a request may pick, and what it selects from."""
        spec = SelectionSpec.model_validate({"budget": {"count": BUDGET}, **selection})
        count = len(self.values)
        numbers, alike = np.arange(count), np.ones(count, dtype=np.int64)
        keep = staying(
            count, left_out(self.figures, suspicion(self.figures), spec, numbers, alike, Membership.of_all())
        )
        factors = length_factors(self.figures.norm, spec.normalize)
        scaled = kept_and_scaled(self.values.copy(), keep, factors)
        return keep, turned(scaled, own_metric(scaled, spec.own_weight))


def demo_rows() -> Rows:
    """The demo's rows: the largest set of sketches there is.

    Raises:
        SystemExit: The demo has not been run here.
    """
    sets = [sorted(path.glob("shard-*.safetensors")) for path in SKETCHES.glob("*")]
    loaded = [[load_file(shard) for shard in shards] for shards in sets if shards]
    if not loaded:
        sys.exit(f"{SKETCHES} holds no sketches: run `make demo` first")
    shards = max(loaded, key=lambda one: sum(len(shard["values"]) for shard in one))
    values, *losses = (
        np.concatenate([shard[name] for shard in shards])
        for name in ("values", "token_losses", "unprompted", "end_losses")
    )
    return Rows(values, row_figures(values, *losses))


def table(headings: str, rows: Iterable[Iterable[object]]) -> None:
    """Print a table of Markdown."""
    print(f"\n| {headings} |\n|{'---|' * (headings.count('|') + 1)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def certificate(selection: Selection) -> str:
    value = selection.certificate
    return "-" if value is None else f"{value:.3f}"


def sweep_lengths(rows: Rows) -> Iterable[tuple[object, ...]]:
    config = SelectionConfig(budget=BUDGET)
    default: NDArray[np.int64] | None = None
    for name, selection in LENGTHS.items():
        keep, values = rows.candidates(**selection)
        one = select(values, config)
        picks = keep[one.indices]
        default = picks if default is None else default
        norms = rows.figures.norm
        yield (
            name,
            len(keep),
            certificate(one),
            f"{norms[picks].mean() / np.median(norms):.2f}",
            f"{rows.figures.loss[picks].mean():.2f}",
            f"{rows.figures.ifd[picks].mean():.2f}",
            f"{one.conflicts.mean():.4f}",
            f"{jaccard(picks, default):.0%}",
        )


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
        yield (
            f"{scale:g} x auto",
            f"{one.log_det[-1]:.2f}",
            certificate(one),
            f"{one.marginal_gains[-1] / one.marginal_gains[0]:.2f}",
            f"{jaccard(one.indices, auto.indices):.0%}",
        )


def sweep_dimension(sketches: NDArray[np.float32], plain: NDArray[np.float32]) -> Iterable[tuple[object, ...]]:
    """With the sketches as they are selected from, and before the metric: a smaller sketch has a metric of its own."""
    full = select(sketches, SelectionConfig(budget=BUDGET))
    for dimension in DIMENSIONS:
        shared, held = [], []
        for seed in SEEDS:
            random = np.random.default_rng(seed).standard_normal((plain.shape[1], dimension)).astype(np.float32)
            smaller = plain @ random
            smaller /= np.linalg.norm(smaller, axis=1, keepdims=True)
            smaller = turned(smaller, own_metric(smaller, REPRESENTATIVE))
            one = select(smaller, SelectionConfig(budget=BUDGET))
            shared.append(len(set(one.indices.tolist()) & set(full.indices.tolist())) / BUDGET)
            held.append(information(sketches[one.indices], full.alpha) / full.log_det[-1])
        yield dimension, f"{np.mean(shared):.0%}", f"{np.mean(held):.1%}", f"{min(held):.1%}"


def sweep_budget(sketches: NDArray[np.float32], of: int) -> Iterable[tuple[object, ...]]:
    for fraction in FRACTIONS:
        budget = round(fraction * of)
        one = select(sketches, SelectionConfig(budget=budget))
        random = [select(sketches, SelectionConfig(budget=budget, method="random", seed=seed)) for seed in SEEDS]
        mean = np.mean([run.log_det[-1] for run in random])
        yield f"{fraction:.0%}", budget, f"{one.log_det[-1]:.1f}", f"{mean:.1f}", certificate(one)


def information(vectors: NDArray[np.float32], alpha: float) -> float:
    """F of a set, in nats."""
    wide = vectors.astype(np.float64)
    return float(np.linalg.slogdet(np.eye(len(wide)) + alpha * wide @ wide.T)[1])


def main() -> None:
    rows = demo_rows()
    _, sketches = rows.candidates()
    _, plain = rows.candidates(representative=0)
    off = (plain @ plain.T)[~np.eye(len(sketches), dtype=bool)]
    print(
        f"{len(rows.values)} rows, p = {sketches.shape[1]}, {len(sketches)} candidates; cosines: mean "
        f"{off.mean():.3f}, {(off < 0).mean():.1%} below 0"
    )
    print(f"\nlengths and filter, {BUDGET} picks")
    table(
        "selection | candidates | certificate | norm of picks over median | their loss | their IFD | mean conflict | "
        "picks shared with the default",
        sweep_lengths(rows),
    )
    for budget in (BUDGET, len(sketches) // 2):
        print(f"\nconflict_penalty, {budget} picks")
        table(
            "lambda | log det, nats | lost | mean conflict | picks in conflict | shared with 0",
            sweep_penalty(sketches, budget),
        )
    print("\nearly_stop_ratio")
    for name, selected_from in (("the default", sketches), ("`representative` 0", plain)):
        print(f"\n{name}")
        table("omega | picks | of the candidates | of the information of all | certificate", sweep_ratio(selected_from))
    print(f"\nalpha, {BUDGET} picks")
    table("alpha | log det, nats | certificate | last gain over first | shared with auto", sweep_alpha(sketches))
    print(f"\nsketch_dim, {BUDGET} picks")
    table("p | picks shared with 2048 | information held, mean | worst of 5", sweep_dimension(sketches, plain))
    print("\nbudget")
    table("fraction | picks | log det, nats | random | certificate", sweep_budget(sketches, len(rows.values)))


if __name__ == "__main__":
    main()
