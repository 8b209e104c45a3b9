"""One job at 10,000, 100,000 and 1,000,000 rows, stage by stage: time, processor time, memory, disk, and their growth.

    python -m benchmarks.scale [--rows 10000,100000,1000000] [--partitions] [--keep]

The whole service runs on embedded servers with one worker of one thread, so that a stage's processor time is its own.
The model is tiny: what is measured is everything but the model. It takes an hour and 30 GB of disk, so it is no part of
`make bench`; with --keep it writes benchmarks/scale.json and the table of docs/scaling.md.

With --partitions selections in one process and in parts are timed on made-up sketches, at sizes around those where
parts begin to win.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from benchmarks.jobs import texts
from benchmarks.row import machine
from benchmarks.running_service import running_service
from tests.integration.tiny_model import save_tiny_model
from workers.selection import PartPicks, SelectionConfig, merge, partition, select, select_part, settle

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "scale.json"
PAGE = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- scale: made by `python -m benchmarks.scale --keep` -->\n", "<!-- /scale -->\n"
SIZES = (10_000, 100_000, 1_000_000)
STAGES = ("reading", "gradients", "selecting", "publishing")
SKETCH_DIM = 256
FRACTION = 0.01
LOOK_EVERY_S = 0.2
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
        tokens: Their tokens.
        stages: By stage.
        disk: Bytes of the artifact store and of the worker's cache afterwards.
        database: Bytes of the database.
    """

    rows: int
    tokens: int = 0
    stages: dict[str, StageCost] = field(default_factory=lambda: {name: StageCost() for name in STAGES})
    disk: int = 0
    database: int = 0


class Meter:
    """Adds the processor time and the memory of a worker to the stage that its job is in."""

    def __init__(self, worker: int, cost: JobCost) -> None:
        """Of a worker process by its number."""
        self._worker, self._cost = psutil.Process(worker), cost
        self._before = self._processor_s()
        self.stage: str | None = None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ends.wait(LOOK_EVERY_S):
            now, memory = self._processor_s(), self._memory()
            if self.stage in self._cost.stages:
                stage = self._cost.stages[self.stage]
                stage.processor_s += max(0.0, now - self._before)
                stage.memory = max(stage.memory, memory)
            self._before = now

    def _family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self._worker, *self._worker.children(recursive=True)]
        return []

    def _processor_s(self) -> float:
        total = 0.0
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def _memory(self) -> int:
        total = 0
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total


def measured(sizes: Sequence[int]) -> list[JobCost]:
    """A job of each size, one after the other; a short one comes first, so that the worker is warm."""
    with running_service(token_budget=16_384) as service:
        written = texts()
        model = save_tiny_model(service.directory / "tiny", [row["prompt"] + row["response"] for row in written])
        costs = []
        with service.workers(1) as (worker,):
            for rows in (100, *sizes):
                dataset = _written(service.directory / f"rows-{rows}.jsonl", written, rows)
                cost = JobCost(rows)
                job_id = service.submit(
                    {
                        "dataset": {"uri": dataset.as_uri()},
                        "model": {"uri": model.as_uri(), "max_length": 64},
                        "gradients": {"rank": 2, "sketch_dim": SKETCH_DIM},
                        "selection": {"budget": {"fraction": FRACTION}},
                    }
                )
                with Meter(worker.pid, cost) as meter:

                    def looked(job: dict[str, Any], meter: Meter = meter) -> None:
                        meter.stage = job["stage"]

                    result = service.ended(job_id, looked)["result"]
                for name, seconds in result["seconds"].items():
                    if name in cost.stages:
                        cost.stages[name].seconds = seconds
                cost.tokens = result["tokens"]
                cost.disk = _size(service.settings.data_dir)
                cost.database = _size(service.directory / "servers" / "postgres")
                costs.append(cost)
                print(f"{rows:,} rows: {sum(one.seconds for one in cost.stages.values()):.1f} s", file=sys.stderr)
    return costs[1:]


def _written(path: Path, texts: list[dict[str, str]], rows: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for place in range(rows):
            row = texts[place % len(texts)]
            file.write(json.dumps({"prompt": f"{place}: {row['prompt']}", "response": row["response"][:160]}) + "\n")
    return path


def _size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


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
        line(f"{stage}, seconds", [one.seconds for one in of_stage], _seconds)
        line(f"{stage}, processor seconds", [one.processor_s for one in of_stage], _seconds)
        line(f"{stage}, memory", [one.memory for one in of_stage], _bytes)
    line("disk: store and cache, of all jobs so far", [cost.disk for cost in costs], _bytes)
    line("database, likewise", [cost.database for cost in costs], _bytes)
    about = f"p = {SKETCH_DIM}, {FRACTION:.0%} picked, a model of some thousand weights, one worker of one thread"
    return "".join(lines) + f"\n{about}; {machine()}.\n"


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


def keep(costs: Sequence[JobCost], text: str) -> None:
    """Write the figures, and the page's table."""
    RESULTS.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n", encoding="utf-8")
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + text + END + after, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--rows", default=",".join(map(str, SIZES)), help="sizes, comma separated")
    parser.add_argument("--partitions", action="store_true", help="time selections in parts instead")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/scale.json and docs/scaling.md")
    options = parser.parse_args(arguments)
    if options.partitions:
        print(partitions())
        return 0
    costs = measured([int(size) for size in options.rows.split(",")])
    text = table(costs)
    print(text)
    if options.keep:
        keep(costs, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
