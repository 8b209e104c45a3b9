"""What jobs of several sizes have cost, as it was kept, and the table of it in docs/scaling.md."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "scale.json"
PAGE = ROOT / "docs" / "scaling.md"
SIZES_TABLE = "<!-- scale: made by `python -m benchmarks.scale --keep` -->\n", "<!-- /scale -->\n"
PARTS_TABLE = "<!-- parts: made by `python -m benchmarks.scale --partitions --keep` -->\n", "<!-- /parts -->\n"
"""The marks that a table stands between."""
STAGES = ("reading", "gradients", "selecting", "publishing")
SKETCH_DIM = 128
PICKS = 1000


@dataclass
class StageCost:
    """What one stage took.

    Attributes:
        seconds: As the service reports it.
        processor_s: Of the worker and the processes that it starts.
        memory: Largest resident memory of these meanwhile, bytes.
    """

    seconds: float = 0.0
    processor_s: float = 0.0
    memory: int = 0


@dataclass
class JobCost:
    """What one job took.

    Attributes:
        rows: Rows of its dataset.
        machine: What it ran on.
        tokens: Tokens of the rows.
        stages: By stage.
        dataset: Bytes of its file.
        disk: Bytes that the job added to the artifact store and to the worker's cache.
        database: Bytes that the job added to the database.
    """

    rows: int
    machine: str
    tokens: int = 0
    stages: dict[str, StageCost] = field(default_factory=lambda: {name: StageCost() for name in STAGES})
    dataset: int = 0
    disk: int = 0
    database: int = 0


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The power of the rows that a figure grows with, between its two largest sizes; not a number for one alone."""
    pairs = [(n, value) for n, value in zip(sizes, values, strict=True) if value > 0]
    if len(pairs) < 2:
        return math.nan
    (one, less), (other, more) = list(pairwise(pairs))[-1]
    return math.log(more / less) / math.log(other / one)


def table(costs: Sequence[JobCost]) -> str:
    """The figures of each stage by rows, and what each grows with."""
    sizes = [cost.rows for cost in costs]
    heads = " | ".join(f"{rows:,} rows" for rows in sizes)
    lines = [f"| | {heads} | grows with n to the |\n", f"|---|{'---|' * (len(sizes) + 1)}\n"]

    def line(name: str, values: Sequence[float], shown: Callable[[float], str]) -> None:
        power = exponent(sizes, values)
        lines.append(f"| {name} | {' | '.join(map(shown, values))} | {'' if math.isnan(power) else f'{power:.2f}'} |\n")

    for stage in STAGES:
        of_stage = [cost.stages[stage] for cost in costs]
        line(f"{stage}, processor seconds", [one.processor_s for one in of_stage], _seconds)
        line(f"{stage}, seconds", [one.seconds for one in of_stage], _seconds)
        line(f"{stage}, memory", [one.memory for one in of_stage], _bytes)
    line("the dataset's file", [cost.dataset for cost in costs], _bytes)
    line("store and cache", [cost.disk for cost in costs], _bytes)
    line("database", [cost.database for cost in costs], _bytes)
    tokens = ", ".join(f"{cost.tokens / cost.rows:.0f}" for cost in costs)
    about = (
        f"p = {SKETCH_DIM}, {PICKS:,} picks, rows of {tokens} tokens, gradients of the query projections of a model of "
        "some thousand weights, one worker of one thread"
    )
    return "".join(lines) + f"\n{about}; {'; '.join(sorted({cost.machine for cost in costs}))}.\n"


def _seconds(value: float) -> str:
    return f"{value:,.1f} s" if value < 1000 else f"{value:,.0f} s"


def _bytes(value: float) -> str:
    if value >= 1e9:
        return f"{value / 1e9:.2f} GB"
    return f"{value / 1e6:.0f} MB" if value >= 1e7 else f"{value / 1e3:,.0f} kB"


def kept() -> list[JobCost]:
    """What was measured and kept so far, the fewest rows first."""
    if not RESULTS.exists():
        return []
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    stages = [{name: StageCost(**stage) for name, stage in one.pop("stages").items()} for one in found]
    return [JobCost(**one, stages=of_job) for one, of_job in zip(found, stages, strict=True)]


def keep(cost: JobCost) -> None:
    """Write a job's figures in place of those of as many rows, and the page's table of all."""
    costs = sorted([*(one for one in kept() if one.rows != cost.rows), cost], key=lambda one: one.rows)
    RESULTS.write_text(json.dumps([asdict(one) for one in costs], indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), costs), encoding="utf-8")


def page(before: str, costs: Sequence[JobCost]) -> str:
    """A page with the table of these jobs between its marks."""
    return between(SIZES_TABLE, before, table(costs))


def keep_parts(text: str) -> None:
    """Write the table of selections in parts."""
    PAGE.write_text(between(PARTS_TABLE, PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


def between(marks: tuple[str, str], before: str, text: str) -> str:
    """A page with another text between two marks, each of which it has once."""
    head, rest = before.split(marks[0])
    _, tail = rest.split(marks[1])
    return head + marks[0] + text + marks[1] + tail
