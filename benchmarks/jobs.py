"""What jobs cost beside their own work: the same work asked for by many, and the time that was estimated.

    python -m benchmarks jobs [--quick]

Ten jobs that differ in the seed of their selection alone are queued together, with two workers: each row's gradient is
to be computed once. Then jobs of several sizes are estimated and run, one after the other; the first of them have
nothing to be estimated from, and do not count.
"""

from __future__ import annotations

import inspect
import json
import os
import statistics
import textwrap
from typing import TYPE_CHECKING, Any

from benchmarks.row import BenchRow
from benchmarks.running_service import running_service
from tests.integration.tiny_model import save_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.running_service import RunningService

SEEDS = 10
SHARED_ROWS, QUICK_SHARED_ROWS = 1000, 200
SIZES, QUICK_SIZES = (800, 2400, 1600, 4800, 3200, 2000, 4000, 1200), (200, 600, 400)
UNTOLD = 2
"""Jobs that make the measurements which the estimates of the others rest on."""
LARGEST_ERROR = 0.2
SHARD_ROWS = 128


def rows(*, quick: bool = False) -> list[BenchRow]:
    """The two rows of this suite."""
    with running_service(shard_rows=SHARD_ROWS, token_budget=4096) as service:
        written = texts()
        model = save_tiny_model(service.directory / "tiny", [row["prompt"] + row["response"] for row in written])
        with service.workers(2):
            shared = _shared(service, model, written, QUICK_SHARED_ROWS if quick else SHARED_ROWS)
        with service.workers(1):
            error = _estimated(service, model, written, QUICK_SIZES if quick else SIZES)
    return [shared, error]


def _shared(service: RunningService, model: Path, texts: list[dict[str, str]], count: int) -> BenchRow:
    body = _body(service, model, texts, count, seed=0)
    jobs = [
        service.submit({**body, "selection": {"budget": {"fraction": 0.1}, "method": "random", "seed": seed}})
        for seed in range(SEEDS)
    ]
    results = [service.ended(job)["result"] for job in jobs]
    computed = sum(result["gradients"]["computed"] for result in results)
    return BenchRow(
        name="service/same_work_once",
        value=computed / results[0]["rows_usable"],
        unit="gradients a row",
        target=1.0,
        baseline=f"{SEEDS} jobs over {count} rows that differ in selection.seed, queued together, two workers: "
        f"{computed} gradients",
        smaller_is_better=True,
    )


def _estimated(service: RunningService, model: Path, texts: list[dict[str, str]], sizes: tuple[int, ...]) -> BenchRow:
    errors, within = [], 0
    for place, count in enumerate(sizes):
        body = _body(service, model, texts, count, seed=100 + place)
        response = service.http.post("/estimates", json=body)
        assert response.status_code == 200, response.text
        told = response.json()["seconds"]
        took = sum(service.ended(service.submit(body))["result"]["seconds"].values())
        if place >= UNTOLD:
            errors.append(abs(told["likely"] / took - 1))
            within += told["low"] <= took <= told["high"]
    return BenchRow(
        name="service/estimate_error",
        value=statistics.median(errors),
        unit="of the time",
        target=LARGEST_ERROR,
        baseline=f"the stages of {len(errors)} jobs of {min(sizes)} to {max(sizes)} rows, after {UNTOLD} others; "
        f"{within} of them took between low and high",
        smaller_is_better=True,
    )


def _body(service: RunningService, model: Path, texts: list[dict[str, str]], count: int, seed: int) -> dict[str, Any]:
    dataset = service.directory / f"rows-{count}-{seed}.jsonl"
    some = [texts[place % len(texts)] for place in range(count)]
    numbered = [{**row, "prompt": f"{place + seed}: {row['prompt']}"} for place, row in enumerate(some)]
    dataset.write_text("".join(json.dumps(row) + "\n" for row in numbered), encoding="utf-8")
    return {
        "dataset": {"uri": dataset.as_uri()},
        "model": {"uri": model.as_uri(), "max_length": 128},
        "gradients": {"rank": 4, "sketch_dim": 256},
        "selection": {"budget": {"fraction": 0.1}},
    }


def texts() -> list[dict[str, str]]:
    return [
        {"prompt": f"What does {module.__name__}.{name} do?", "response": (inspect.getdoc(member) or "")[:300]}
        for module in (textwrap, json, inspect, os, statistics)
        for name, member in sorted(vars(module).items())
        if callable(member) and inspect.getdoc(member)
    ]
