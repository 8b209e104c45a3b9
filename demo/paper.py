"""The worked example of docs/paper.md: what training between windows changes, by SmolLM2 on the demo's rows.

    python -m demo.paper [--rows 128] [--seeds 5]

Selects once from all rows, window by window with training in between, and window by window without it; prints what each
came to and what they share, then proves by training whether the picks with training in between are the better ones.
Three quarters of an hour on two cores that had other work too.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from demo.client import Client
from demo.command import carry_out, parser_of
from demo.dataset import write_dataset
from demo.model import DATA, MODEL, unpack_model
from demo.proof import HELD_OUT, MAX_ROW_BYTES, TRAINING
from demo.service import running
from spice_client import SpiceClient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from spice_client import Proof, SucceededJob

FILES = DATA / "paper"
WINDOWS, KEEP, TRAIN_EVERY = 16, 2, 2
NEVER = 1_000_000
ONCE, SCHEDULE = "once", "schedule"
SHOWN = ("window", "steps", "log_det", "conflict", "epsilon", "loss", "trained_after", "train_loss", "learning_rate")


def requests(dataset: Path) -> dict[str, dict[str, Any]]:
    """The body of each job. All are of the same adapter, lengths and rows, so that the schedule alone differs."""
    common: dict[str, Any] = {"dataset": {"uri": dataset.as_uri()}, "model": {"uri": MODEL.as_uri()}}
    gradients = {"rank": 16, "prompt_effect": False}
    schedule = {"windows": WINDOWS, "keep": KEEP, "train_every": TRAIN_EVERY}
    found: dict[str, dict[str, Any]] = {}
    picked: dict[str, Any] = {"filters": {}}
    once = {**picked, "budget": {"fraction": KEEP / WINDOWS}, "representative": 0}  # as in a window
    found[ONCE] = common | {"gradients": gradients, "selection": once}
    found[SCHEDULE] = common | {"selection": picked, "schedule": schedule}
    # Two picks of a window find a way around each other: without the penalty, and with more of them, conflicts show.
    free = {"selection": {**picked, "conflict_penalty": 0}, "schedule": {"windows": 32, "keep": 8, "train_every": 1}}
    found["no penalty"] = common | free
    found["windows"] = common | {"selection": picked, "schedule": {**schedule, "train_every": NEVER}}
    return found


def proof_request(job: SucceededJob, picks: dict[str, list[int]], held_out: Path, seeds: int) -> dict[str, Any]:
    """The body of the proof: picks with training in between, and random rows, against the picks of one selection."""
    arms = [{"name": name, "indices": picks[name]} for name in (SCHEDULE, ONCE)]
    return {
        "job": str(job.id),
        "arms": [*arms, "random"],
        "against": ONCE,
        "held_out": {"dataset": {"uri": held_out.as_uri()}},
        "seeds": seeds,
        "training": TRAINING,
        "name": "paper",
    }


def run(rows: int, seeds: int, console: Console) -> int:
    """All jobs and the proof; 0, as whatever has no result is an exception."""
    FILES.mkdir(parents=True, exist_ok=True)
    dataset, held_out = (DATA / "datasets" / f"short-{rows}{part}.jsonl" for part in ("", "-held-out"))
    write_dataset(dataset, rows, max_bytes=MAX_ROW_BYTES)
    write_dataset(held_out, HELD_OUT, beyond=rows, max_bytes=MAX_ROW_BYTES)
    unpack_model(console)
    jobs: dict[str, SucceededJob] = {}
    picks: dict[str, list[int]] = {}
    with running(DATA, FILES / "serve.log") as address, SpiceClient(address) as client:
        for name, asked in requests(dataset).items():
            body: Any = {**asked, "name": f"paper: {name}"}
            jobs[name] = client.wait(client.jobs.submit(body))
            picks[name] = list(client.subset(jobs[name]).indices)
            show(console, name, asked, jobs[name], Client(address))
        show_overlap(console, picks)
        request = proof_request(jobs[ONCE], picks, held_out, seeds)
        show_proof(console, client.proofs.wait(client.proofs.submit(request)))
    return 0


def show(console: Console, name: str, body: dict[str, Any], job: SucceededJob, client: Client) -> None:
    """A job's request and what is told of its windows."""
    document = job.result.document()
    found = {key: document[key] for key in ("selected", "log_det", "mean_conflict", "schedule", "seconds")}
    curve = client.get(f"/jobs/{job.id}/statistics")["schedule"]
    if curve is not None:
        found["curve"] = {key: curve[key] for key in SHOWN}
    (FILES / f"{name}.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    asked = {key: value for key, value in body.items() if key not in ("dataset", "model")}
    console.print(f"\n## {name}\n{json.dumps(asked)}\n{json.dumps(found)}", markup=False, highlight=False)


def show_overlap(console: Console, picks: dict[str, list[int]]) -> None:
    """What each job's picks share with every other's."""
    console.print("\n## Jaccard index of the picks")
    sets = {name: set(some) for name, some in picks.items()}
    for name, some in sets.items():
        shared = [f"{len(some & other) / len(some | other):.2f}" for other in sets.values()]
        console.print(f"{name:>16}: {', '.join(shared)}", highlight=False)


def show_proof(console: Console, proof: Proof) -> None:
    """What training on each arm's rows came to, and the verdicts."""
    document = proof.document()
    (FILES / "proof.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
    console.print("\n## Proof")
    for arm in document["arms"]:
        told = {key: arm[key] for key in ("name", "rows", "tokens", "steps", "mean")}
        console.print(json.dumps(told), markup=False, highlight=False)
    for one in document["comparisons"]:
        console.print(json.dumps(one), markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = parser_of("python -m demo.paper", __doc__, rows=128)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each arm of the proof (default: 5)")
    options = parser.parse_args(arguments)
    return carry_out("The example", partial(run, options.rows, options.seeds))


if __name__ == "__main__":
    sys.exit(main())
