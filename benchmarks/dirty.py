"""Whether a selection hunts for mistakes, and whether the suspects find them: on real text with planted mistakes.

    python -m benchmarks.dirty [--rows 200]

Prints the tables of docs/dirty.md: every kind of mistake, share and setting. The rows of `make bench` are of the
default setting. Sketches are kept under var/benchmarks, so that another setting costs no pass of a model.

Mistakes are planted in tenths of a pool, and every choice of tenths that makes up a share is a pool of its own. The
figures are means over these pools.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.selection_request import SelectionSpec
from benchmarks.dirty_pools import KINDS, SHARES, TENTHS, llama_pool, smollm2_pool
from benchmarks.row import BenchRow
from workers.selection import select
from workers.stages.candidates import left_out, picks_of, staying
from workers.stages.limits import Membership
from workers.stages.objective import turned
from workers.stages.part import selection_config
from workers.stages.purposes import own_metric
from workers.statistics.row_figures import kept_and_scaled, length_factors, row_figures
from workers.statistics.suspects import suspicion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from benchmarks.dirty_pools import Kind, Pool, Scored
    from workers.statistics.row_figures import RowFigures

BUDGET = 0.1
PAPERS = "as they are, no filter (the paper's)"
UNIT = "unit, no filter"
SETTINGS = {
    PAPERS: {"normalize": "none", "filters": {}},
    "clip, no filter": {"normalize": "clip", "filters": {}},
    UNIT: {"normalize": "unit", "filters": {}},
    "unit, IFD at most 1": {"normalize": "unit", "filters": {"ifd": {"max": 1.0}}},
    "as they are, default filter": {"normalize": "none"},
    "unit, default filter, all directions alike": {"representative": 0},
    "**default**": {},
    "`fisher`, default filter": {"method": "fisher"},
    "`dpp`, no filter": {"method": "dpp", "filters": {}},
    "`grad_norm`, no filter": {"method": "grad_norm", "filters": {}},
}
MOST = 0.5
"""Of the pool's share of mistakes, what the default may pick."""
PRECISE = 0.7
"""What the suspects are to reach with a fifth of the responses swapped, among as many rows as are wrong."""


def spec_of(**fields: object) -> SelectionSpec:
    """A selection as a request asks for it."""
    return SelectionSpec.model_validate({"budget": {"fraction": BUDGET}, **fields})


def picks(scored: Scored, spec: SelectionSpec) -> NDArray[np.int64]:
    """What a job picks of the rows: (k,), int64."""
    figures = figures_of(scored)
    count = len(scored.values)
    numbers, alike = np.arange(count), np.ones(count, dtype=np.int64)
    keep = staying(count, left_out(figures, suspicion(figures), spec, numbers, alike, Membership.of_all()))
    budget = min(picks_of(spec.budget, count, 0), len(keep))
    scaled = kept_and_scaled(scored.values.copy(), keep, length_factors(figures.norm, spec.normalize))
    values = turned(scaled, own_metric(scaled, spec.own_weight))
    config = selection_config(spec, budget=budget, device="cpu")
    found: NDArray[np.int64] = keep[select(values, config, norms=figures.norm[keep]).indices]
    return found


def figures_of(scored: Scored) -> RowFigures:
    """The figures of each row."""
    return row_figures(scored.values, scored.token_losses, scored.unprompted, scored.end_losses)


def share_picked(spec: SelectionSpec, scored: Scored, wrong: NDArray[np.bool_]) -> float:
    """Share of mistakes among the picks over their share in the pool: random rows have 1."""
    return float(wrong[picks(scored, spec)].mean() / wrong.mean())


def precision(scored: Scored, wrong: NDArray[np.bool_]) -> float:
    """Share of mistakes among the rows that look most wrong, as many as there are mistakes."""
    worst = np.argsort(-suspicion(figures_of(scored)), kind="stable")[: int(wrong.sum())]
    return float(wrong[worst].mean())


def mean_over_pools(
    of_one: Callable[[Scored, NDArray[np.bool_]], float], pool: Pool, kind: Kind, share: float
) -> float:
    """The mean of a figure over all pools with that share of that kind of mistake."""
    tenths = combinations(range(TENTHS), round(10 * share))
    return float(np.mean([of_one(*pool.with_mistakes(kind, chosen)) for chosen in tenths]))


def rows(*, quick: bool) -> list[BenchRow]:
    """The figures of the default setting."""
    pools = [smollm2_pool(40), llama_pool(200)] if quick else [smollm2_pool(200), llama_pool(2000)]
    sizes = "; ".join(pool.described for pool in pools)
    ratio = f"share of mistakes among the picks ({BUDGET:.0%} of the rows) over their share in the pool: random has 1"
    picked = {
        (kind, share, pool.name): mean_over_pools(partial(share_picked, spec_of()), pool, kind, share)
        for kind in KINDS
        for share in SHARES
        for pool in pools
    }
    swapped = [f"{pool.name}: default {picked['swapped', 0.2, pool.name]:.2f}{_others(pool)}" for pool in pools]
    kind, share, name = worst = max(picked, key=picked.__getitem__)
    found = {(kind, pool.name): mean_over_pools(precision, pool, kind, 0.2) for kind in KINDS for pool in pools}
    every = ", ".join(f"{name} {kind} {value:.2f}" for (kind, name), value in found.items())
    return [
        BenchRow(
            "dirty/default_share_swapped_20",
            max(picked["swapped", 0.2, pool.name] for pool in pools),
            "x",
            MOST,
            f"{ratio}, smaller is better; a fifth of the responses taken from other rows, the worse of two models; "
            f"{'; '.join(swapped)}; {sizes}",
            smaller_is_better=True,
        ),
        BenchRow(
            "dirty/default_share_worst",
            picked[worst],
            "x",
            MOST,
            f"{ratio}, smaller is better; the largest of two models, four kinds of mistakes, and 10, 20 and 40% of "
            f"them: {name}, {kind}, {share:.0%}; at most {MOST} in "
            f"{sum(value <= MOST for value in picked.values())} of {len(picked)}",
            smaller_is_better=True,
        ),
        BenchRow(
            "dirty/suspects_precision",
            found["swapped", pools[0].name],
            "share",
            PRECISE,
            f"mistakes among the rows that look most wrong, as many as there are mistakes: a fifth of the rows, so "
            f"random has 0.2; {pools[0].name}, responses of other rows; all: {every}",
        ),
    ]


def _others(pool: Pool) -> str:
    """What other settings do with a fifth of the responses swapped."""
    return "".join(
        f", {name} {mean_over_pools(partial(share_picked, spec_of(**SETTINGS[name])), pool, 'swapped', 0.2):.2f}"
        for name in (PAPERS, UNIT)
    )


def table(pool: Pool) -> Iterator[str]:
    """Lines of Markdown: mistakes among the picks by setting, and what the suspects find."""
    columns = [(kind, share) for kind in KINDS for share in SHARES]
    yield f"| {pool.described} | " + " | ".join(f"{kind} {share:.0%}" for kind, share in columns) + " |"
    yield f"|{'---|' * (len(columns) + 1)}"
    lines: dict[str, Callable[[Scored, NDArray[np.bool_]], float]] = {
        name: partial(share_picked, spec_of(**fields)) for name, fields in SETTINGS.items()
    }
    for name, of_one in {**lines, "precision of the suspects": precision}.items():
        cells = " | ".join(f"{mean_over_pools(of_one, pool, kind, share):.2f}" for kind, share in columns)
        yield f"| {name} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dirty")
    parser.add_argument(
        "--rows", type=int, default=200, help="rows that SmolLM2 scores; the Llama has ten times as many"
    )
    options = parser.parse_args()
    for pool in (llama_pool(10 * options.rows), smollm2_pool(options.rows)):
        print(*table(pool), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
