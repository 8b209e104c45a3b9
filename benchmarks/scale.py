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
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from sqlalchemy import create_engine
from sqlalchemy import text as sql

from benchmarks.jobs import texts
from benchmarks.row import machine
from benchmarks.running_service import running_service
from benchmarks.scale_table import PICKS, SKETCH_DIM, JobCost, keep, keep_parts, table
from tests.integration.tiny_model import save_tiny_model
from workers.selection import PartPicks, SelectionConfig, merge, partition, select, select_part, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.running_service import RunningService

SIZES = (10_000, 100_000, 1_000_000)
WARM_ROWS = 100
"""Of the first job, which has the worker import and load everything, and does not count."""
PROMPT_CHARACTERS, RESPONSE_CHARACTERS, MAX_LENGTH = 6, 12, 64
PARTS = (
    (100_000, 1000, 64, 10),
    (100_000, 1000, 256, 10),
    (100_000, 10_000, 256, 3),
    (100_000, 200, 1024, 22),
    (1_000_000, 1000, 64, 32),
)
"""Rows, picks, length of a sketch, parts."""


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
            return int(connection.execute(sql("SELECT pg_database_size(current_database())")).scalar_one())
    finally:
        engine.dispose()


def partitions() -> str:
    """One process against parts on a worker each, in processor seconds of a thread: the slowest part, and the merge."""
    lines = [
        "| n | k | p | parts | one process | the slowest part | the merge | on as many workers |\n",
        "|---|---|---|---|---|---|---|---|\n",
    ]
    torch.set_num_threads(1)
    for rows, picks, dim, parts in PARTS:
        values = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
        config = settle(values, SelectionConfig(budget=picks, alpha="auto"))
        alone = _processor_s(lambda: select(values, config))  # noqa: B023 - called at once
        slowest, chosen = 0.0, []
        for places in partition(rows, parts, 0):

            def picked(places: NDArray[np.int64] = places) -> None:
                found = select_part(values[places], np.arange(len(places)), config)  # noqa: B023 - likewise
                chosen.append(PartPicks(places[found.indices], found.marginal_gains))  # noqa: B023 - likewise

            slowest = max(slowest, _processor_s(picked))
        merged = _processor_s(lambda: merge(values, chosen, config))  # noqa: B023 - likewise
        lines.append(
            f"| {rows:,} | {picks:,} | {dim:,} | {parts} | {alone:.1f} s | {slowest:.1f} s | {merged:.1f} s | "
            f"{alone / (slowest + merged):.2f} times as fast |\n"
        )
        print(lines[-1], end="", file=sys.stderr, flush=True)
    return "".join(lines) + f"\nProcessor seconds of one thread; sketches drawn at random; {machine()}.\n"


def _processor_s(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--rows", default=",".join(map(str, SIZES)), help="sizes, comma separated")
    parser.add_argument("--partitions", action="store_true", help="time selections in parts instead")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/scale.json and docs/scaling.md")
    options = parser.parse_args(arguments)
    if options.partitions:
        text = partitions()
        print(text)
        if options.keep:
            keep_parts(text)
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
