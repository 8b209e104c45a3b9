"""One job at 10,000, 100,000 and 1,000,000 rows, stage by stage: processor time, memory, disk, and their growth.

    python -m benchmarks.scale [--rows 10000,100000,1000000] [--partitions] [--keep]

The whole service runs on embedded servers with one worker of one thread, so that a stage's processor time is its own.
The model is tiny, gradients are taken of its query projections alone, and the rows are short: what is measured is what
every job has, and next to nothing of the model. It takes longer than `make bench` may, so it is no part of it; with
--keep each size is written to benchmarks/scale.json once it is measured, and the table of docs/scaling.md is made anew
of all sizes there.

With --partitions selections in one process and in parts are timed on made-up sketches, at sizes around those where
parts begin to win.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from sqlalchemy import create_engine, text

from benchmarks.jobs import texts
from benchmarks.row import machine
from benchmarks.running_service import running_service
from tests.integration.tiny_model import save_tiny_model
from workers.selection import PartPicks, SelectionConfig, merge, partition, select, select_part, settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.running_service import RunningService

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "scale.json"
PAGE = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- scale: made by `python -m benchmarks.scale --keep` -->\n", "<!-- /scale -->\n"
SIZES = (10_000, 100_000, 1_000_000)
STAGES = ("reading", "gradients", "selecting", "publishing")
WARM_ROWS = 100
"""Of the first job, which has the worker import and load everything, and does not count."""
PROMPT_CHARACTERS, RESPONSE_CHARACTERS, MAX_LENGTH = 6, 12, 64
SKETCH_DIM = 128
PICKS = 1000
PARTS = ((100_000, 1000, 256, 8), (100_000, 10_000, 256, 4), (400_000, 2000, 256, 14), (400_000, 200, 1024, 32))
"""Rows, picks, length of a sketch, parts."""


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


class Meter:
    """Adds the processor time and the memory of a worker to the stage that its job is in."""

    def __init__(self, worker: int, cost: JobCost) -> None:
        """Of a worker process by its number."""
        self._worker, self._cost = psutil.Process(worker), cost
        self._stage: str | None = None
        self._before = self._family()[0]

    def look(self, job: dict[str, Any]) -> None:
        """Add what was used since the last look to the stage that the job was in then."""
        used, memory = self._family()
        if self._stage in self._cost.stages:
            stage = self._cost.stages[self._stage]
            stage.processor_s += max(0.0, used - self._before)
            stage.memory = max(stage.memory, memory)
        self._stage, self._before = job["stage"], used

    def _family(self) -> tuple[float, int]:
        """Processor seconds and memory of the worker and its children; the time of those that ended is the worker's."""
        used, memory = 0.0, 0
        for process in (self._worker, *self._worker.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                used += sum(process.cpu_times()[:4])
                memory += process.memory_info().rss
        return used, memory


def measured(sizes: Sequence[int]) -> Iterator[JobCost]:
    """A job of each size, one after the other, each as soon as it has ended."""
    with running_service(token_budget=16_384) as service:
        written = texts()
        model = save_tiny_model(service.directory / "tiny", [row["prompt"] + row["response"] for row in written])
        with service.workers(1) as (worker,):
            for rows in (WARM_ROWS, *sizes):
                dataset = _written(service.directory / f"rows-{rows}.jsonl", written, rows)
                cost = _measured_job(service, worker.pid, dataset, model, rows)
                print(f"{rows:,} rows: {asdict(cost)}", file=sys.stderr, flush=True)
                if rows != WARM_ROWS:
                    yield cost


def _measured_job(service: RunningService, worker: int, dataset: Path, model: Path, rows: int) -> JobCost:
    cost = JobCost(rows, machine(), dataset=dataset.stat().st_size)
    disk, database = _size(service.settings.data_dir), _database_size(service)
    meter = Meter(worker, cost)
    job_id = service.submit(
        {
            "dataset": {"uri": dataset.as_uri()},
            "model": {"uri": model.as_uri(), "max_length": MAX_LENGTH},
            "gradients": {"rank": 1, "layers": ["q_proj"], "sketch_dim": SKETCH_DIM},
            "selection": {"budget": {"count": min(PICKS, rows)}},
        }
    )
    result = service.ended(job_id, meter.look)["result"]
    for name, seconds in result["seconds"].items():
        if name in cost.stages:
            cost.stages[name].seconds = seconds
    cost.tokens = result["tokens"]
    cost.disk, cost.database = _size(service.settings.data_dir) - disk, _database_size(service) - database
    return cost


def _written(path: Path, texts: list[dict[str, str]], rows: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for place in range(rows):
            row = texts[place % len(texts)]
            prompt, response = row["prompt"][-PROMPT_CHARACTERS:], row["response"][:RESPONSE_CHARACTERS]
            file.write(json.dumps({"prompt": f"{place}: {prompt}", "response": response}) + "\n")
    return path


def _size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _database_size(service: RunningService) -> int:
    engine = create_engine(str(service.settings.database_url))
    try:
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    finally:
        engine.dispose()


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

    def line(name: str, values: Sequence[float], shown: Any) -> None:  # noqa: ANN401 - a function
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
        f"p = {SKETCH_DIM}, {PICKS:,} picks, rows of {tokens} tokens, a model of some thousand weights, one worker of "
        "one thread"
    )
    return "".join(lines) + f"\n{about}; {'; '.join(sorted({cost.machine for cost in costs}))}.\n"


def partitions() -> str:
    """One process against parts on one worker each: the slowest part, and the merge after it."""
    lines = [
        "| n | k | p | parts | one process | a part | the merge | on as many workers |\n",
        "|---|---|---|---|---|---|---|---|\n",
    ]
    for rows, picks, dim, parts in PARTS:
        values = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
        config = settle(values, SelectionConfig(budget=picks, alpha="auto"))
        began = time.monotonic()
        select(values, config)
        alone = time.monotonic() - began
        slowest, chosen = 0.0, []
        for places in partition(rows, parts, 0):
            began = time.monotonic()
            picked = select_part(values[places], np.arange(len(places)), config)
            slowest = max(slowest, time.monotonic() - began)
            chosen.append(PartPicks(places[picked.indices], picked.marginal_gains))
        began = time.monotonic()
        merge(values, chosen, config)
        merged = time.monotonic() - began
        lines.append(
            f"| {rows:,} | {picks:,} | {dim:,} | {parts} | {alone:.1f} s | {slowest:.1f} s | {merged:.1f} s | "
            f"{alone / (slowest + merged):.2f} times as fast |\n"
        )
        print(lines[-1], end="", file=sys.stderr)
    return "".join(lines)


def _seconds(value: float) -> str:
    return f"{value:,.1f} s" if value < 1000 else f"{value:,.0f} s"


def _bytes(value: float) -> str:
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


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
    head, rest = before.split(BEGIN)
    _, tail = rest.split(END)
    return head + BEGIN + table(costs) + END + tail


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--rows", default=",".join(map(str, SIZES)), help="sizes, comma separated")
    parser.add_argument("--partitions", action="store_true", help="time selections in parts instead")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/scale.json and docs/scaling.md")
    options = parser.parse_args(arguments)
    if options.partitions:
        print(partitions())
        return 0
    costs = []
    for cost in measured([int(size) for size in options.rows.split(",")]):
        costs.append(cost)
        if options.keep:
            keep(cost)
    print(table(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
