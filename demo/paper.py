"""The worked example of docs/paper.md: what training between windows changes, by SmolLM2 on the demo's rows.

    python -m demo.paper [--rows 160]

Selects once from all rows, window by window with training in between, and window by window without it; prints what each
came to and what they share. Some minutes on one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from demo.__main__ import DATA, FORESEEN, MODEL, make_model
from demo.client import Client
from demo.dataset import write_dataset
from demo.proof import MAX_ROW_BYTES
from demo.service import running

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILES = DATA / "paper"
WINDOWS, KEEP, TRAIN_EVERY = 16, 2, 2
NEVER = 1_000_000
SHOWN = ("window", "steps", "log_det", "conflict", "epsilon", "loss", "trained_after", "train_loss", "learning_rate")


def requests(dataset: Path) -> dict[str, dict[str, Any]]:
    """The body of each job. All are of the same adapter, lengths and rows, so that the schedule alone differs."""
    common: dict[str, Any] = {"dataset": {"uri": dataset.as_uri()}, "model": {"uri": MODEL.as_uri()}}
    gradients = {"rank": 16, "prompt_effect": False}
    schedule = {"windows": WINDOWS, "keep": KEEP, "train_every": TRAIN_EVERY}
    found: dict[str, dict[str, Any]] = {}
    picked: dict[str, Any] = {"filters": {}}
    once = {**picked, "budget": {"fraction": KEEP / WINDOWS}}
    found["once"] = common | {"gradients": gradients, "selection": once}
    found["schedule"] = common | {"selection": picked, "schedule": schedule}
    # Two picks of a window find a way around each other: without the penalty, and with more of them, conflicts show.
    free = {"selection": {**picked, "conflict_penalty": 0}, "schedule": {"windows": 32, "keep": 8, "train_every": 1}}
    found["no penalty"] = common | free
    found["windows"] = common | {"selection": picked, "schedule": {**schedule, "train_every": NEVER}}
    return found


def run(rows: int, console: Console) -> int:
    """All jobs; 0 if all ended with a result."""
    FILES.mkdir(parents=True, exist_ok=True)
    dataset = DATA / "datasets" / f"short-{rows}.jsonl"
    write_dataset(dataset, rows, max_bytes=MAX_ROW_BYTES)
    if not MODEL.is_dir():
        console.print("Model: SmolLM2-135M-Instruct, unpacked once (half a minute)")
        make_model()
    picks: dict[str, set[int]] = {}
    with running(DATA, FILES / "serve.log") as address:
        client = Client(address)
        for name, body in requests(dataset).items():
            *_, job = client.watch(client.submit({**body, "name": f"paper: {name}"}))
            if job["state"] != "succeeded":
                console.print(f"The job {job['state']}: {(job['error'] or {}).get('detail', 'nobody said why')}")
                return 1
            picks[name] = set(client.get(f"/jobs/{job['id']}/subset")["indices"])
            show(console, name, body, job, client)
    console.print("\n## Jaccard index of the picks")
    for name, some in picks.items():
        shared = [f"{len(some & other) / len(some | other):.2f}" for other in picks.values()]
        console.print(f"{name:>16}: {', '.join(shared)}", highlight=False)
    return 0


def show(console: Console, name: str, body: dict[str, Any], job: dict[str, Any], client: Client) -> None:
    """A job's request and what is told of its windows."""
    found = {key: job["result"][key] for key in ("selected", "log_det", "mean_conflict", "schedule", "seconds")}
    curve = client.get(f"/jobs/{job['id']}/statistics")["schedule"]
    if curve is not None:
        found["curve"] = {key: curve[key] for key in SHOWN}
    (FILES / f"{name}.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    asked = {key: value for key, value in body.items() if key not in ("dataset", "model")}
    console.print(f"\n## {name}\n{json.dumps(asked)}\n{json.dumps(found)}", markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.paper", description=__doc__)
    parser.add_argument("--rows", type=int, default=160, help="rows of the pool (default: 160)")
    console = Console(soft_wrap=True)
    try:
        return run(parser.parse_args(arguments).rows, console)
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    except FORESEEN as error:
        console.print(f"The example could not go on: {error}", markup=False, highlight=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
