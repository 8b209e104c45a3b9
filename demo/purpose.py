"""The examples of docs/purpose.md: selections for a purpose by SmolLM2 on the demo's rows, and what they give.

    python -m demo.purpose [--rows 240]

Prints each request and its real result, as that page shows them. A few minutes for the gradients, then seconds each.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from demo.command import carry_out, parser_of
from demo.dataset import write_dataset
from demo.model import DATA, MODEL, unpack_model
from demo.service import running
from spice_client import SpiceClient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from spice_client import Job

FILES = DATA / "purpose"
TARGET, PROTECT = "code-to-docstring", "exam-de"
EVALUATED = "worked-answers"
APART = 12
"""Rows of the target's source that are taken out of the pool."""
COPIED = 6
"""Rows of the pool whose questions are the evaluation set."""


def parts(rows: int) -> dict[str, Path]:
    """The pool; two small datasets of rows that it has not, of a source each; and questions that it has."""
    FILES.mkdir(parents=True, exist_ok=True)
    whole = DATA / "datasets" / f"instructions-{rows}.jsonl"
    write_dataset(whole, rows)
    lines = whole.read_text(encoding="utf-8").splitlines()
    sources = [json.loads(line)["source"] for line in lines]
    named = Counter(sources)
    target = TARGET if TARGET in named else named.most_common()[0][0]
    protect = PROTECT if PROTECT in named else named.most_common()[-1][0]
    apart = {
        "target": [line for line, source in zip(lines, sources, strict=True) if source == target][:APART],
        "protect": [line for line, source in zip(lines, sources, strict=True) if source == protect][:APART],
    }
    gone = {line for some in apart.values() for line in some}
    apart["pool"] = [line for line in lines if line not in gone]
    asked = [row["prompt"] for row in map(json.loads, apart["pool"]) if row["source"] == EVALUATED]
    apart["evaluation"] = [json.dumps({"question": prompt}) for prompt in asked[:COPIED]]
    found = {}
    for name, some in apart.items():
        found[name] = whole.with_name(f"{name}-{rows}.jsonl")
        found[name].write_text("\n".join(some) + "\n", encoding="utf-8")
    return found


def requests(files: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """The `selection` of each example."""
    budget = {"fraction": 0.1}
    target = {"dataset": {"uri": files["target"].as_uri()}, "weight": 0.8}
    return {
        "plain": {"budget": budget},
        "tokens": {"budget": {"tokens": 2000}},
        "sources": {
            "budget": budget,
            "constraints": {"sources": {TARGET: {"min": 0.3}, "*": {"max": 0.2}}},
        },
        "rows": {
            "budget": budget,
            "constraints": {
                "include": [0, 1],
                "exclude": [2, 3],
                "near_duplicates": {"cosine": 0.5, "text": True},
            },
        },
        "decontaminate": {
            "budget": budget,
            "constraints": {"decontaminate": {"dataset": {"uri": files["evaluation"].as_uri()}}},
        },
        "target": {"budget": budget, "target": target},
        "protect": {"budget": budget, "target": target, "protect": {"dataset": {"uri": files["protect"].as_uri()}}},
        "methods": {"budget": budget, "target": target, "baselines": ["random", "length", "ifd", "rds_plus"]},
        "sweep": {
            "budget": budget,
            "sweep": {"conflict_penalty": [0, 0.1, 0.5, 1.0], "normalize": ["unit", "none"]},
        },
        "stability": {"budget": budget, "stability": {"sketches": 5, "bootstrap": 20}},
    }


def run(rows: int, console: Console) -> int:
    """All examples; 0 if all ended with a result."""
    files = parts(rows)
    unpack_model(console)
    with running(DATA, FILES / "serve.log") as address, SpiceClient(address) as client:
        for name, selection in requests(files).items():
            body: Any = {
                "dataset": {"uri": files["pool"].as_uri()},
                "model": {"uri": MODEL.as_uri()},
                "selection": selection,
                "name": f"purpose {name}",
            }
            job = client.wait(client.jobs.submit(body))
            show(console, name, selection, job, client, files["pool"])
    return 0


def show(console: Console, name: str, selection: dict[str, Any], job: Job, client: SpiceClient, pool: Path) -> None:
    """An example's request and its result, less what every job says."""
    assert job.result is not None  # noqa: S101 - it has succeeded; tells mypy
    document = job.result.document()
    wanted = ("selected", "tokens_selected", "log_det", "stop_reason", "filtered", "gradients", "seconds")
    further = ("constraints", "decontamination", "target", "protect", "sweep", "stability")
    found = {key: document[key] for key in (*wanted, *further) if document.get(key) is not None}
    found["certificate"] = document["certificate"]["value"]
    sources = [json.loads(line)["source"] for line in pool.read_text(encoding="utf-8").splitlines()]
    subset = client.subset(job.id)
    found["picked_by_source"] = dict(Counter(sources[row] for row in subset.indices).most_common())
    if subset.stability is not None:
        found["stability_of_picks"] = dict(zip(subset.indices, subset.stability, strict=True))
    if selection.get("baselines"):
        found["league"] = [one.document() for one in client.league(job).methods]
    (FILES / f"{name}.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    console.print(f"\n## {name}\n{json.dumps(selection)}\n{json.dumps(found, indent=1)}", markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = parser_of("python -m demo.purpose", __doc__, rows=240).parse_args(arguments)
    return carry_out("The examples", partial(run, options.rows))


if __name__ == "__main__":
    sys.exit(main())
