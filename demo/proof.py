"""One real proof: does training SmolLM2 on the selection beat training on random rows?

    python -m demo.proof [--rows 320] [--seeds 5]

Twice: over rows like the demo's as they are, and with the responses of a fifth of them swapped among each other. Both
are scored on rows of the same kind that are in neither. Prints the table of docs/proof.md; the answers and the reports
are kept under var/proof, and `python -m scripts.proof_pages` writes README and docs/proof.md from them.
"""

from __future__ import annotations

import json
import random
import sys
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

    from spice_client import Proof

FILES = DATA / "proof"
HELD_OUT = 80
MAX_ROW_BYTES = 200
"""Shorter than the demo's, so that 32 runs are a matter of minutes on two cores."""
TRAINING = {"epochs": 1, "learning_rate": 5e-4, "batch_tokens": 256}
MISTAKES = 0.2
CLEAN, DIRTY = "clean", f"{MISTAKES:.0%} mistakes"
ARMS: dict[str, list[Any]] = {
    CLEAN: ["selected", "random", "none", {"name": "alike", "selection": {"representative": 0}}],
    DIRTY: ["selected", "random", "none", {"name": "paper", "selection": {"normalize": "none", "filters": {}}}],
}
HEADINGS = ("rows", "arm", "tokens", "loss", "against random", "95%", "verdict")


def run(rows: int, seeds: int, console: Console) -> int:
    """Both proofs; 0 if both ended with a result."""
    datasets = DATA / "datasets"
    clean, held_out = datasets / f"short-{rows}.jsonl", datasets / f"short-{rows}-held-out.jsonl"
    write_dataset(clean, rows, max_bytes=MAX_ROW_BYTES)
    write_dataset(held_out, HELD_OUT, beyond=rows, max_bytes=MAX_ROW_BYTES)
    pools = {CLEAN: clean, DIRTY: with_mistakes(clean, MISTAKES)}
    unpack_model(console)
    FILES.mkdir(parents=True, exist_ok=True)
    found: dict[str, Proof] = {}
    with running(DATA, FILES / "serve.log") as address, SpiceClient(address) as client:
        for name, dataset in pools.items():
            console.print(f"Proof over {name} rows: {rows} rows, {HELD_OUT} held out, {seeds} seeds an arm")
            found[name] = _prove(client, request_for(dataset, held_out, seeds, name), console)
    console.print()
    console.print("\n".join(table(found)), markup=False, highlight=False, soft_wrap=True)
    return 0


def request_for(dataset: Path, held_out: Path, seeds: int, name: str) -> dict[str, Any]:
    """The body of `POST /proofs`, of a size that two cores can do in half an hour."""
    return {
        "dataset": {"uri": dataset.as_uri()},
        "model": {"uri": MODEL.as_uri()},
        "selection": {"budget": {"fraction": 0.1}},
        "arms": ARMS[name],
        "held_out": {"dataset": {"uri": held_out.as_uri()}},
        "seeds": seeds,
        "training": TRAINING,
        "name": name,
    }


def with_mistakes(dataset: Path, share: float) -> Path:
    """The dataset beside itself, with the responses of some rows each given to the next of them."""
    rows = [json.loads(line) for line in dataset.read_text(encoding="utf-8").splitlines()]
    places = sorted(random.Random(0).sample(range(len(rows)), round(share * len(rows))))  # noqa: S311 - no secret
    moved = [rows[place]["response"] for place in (*places[1:], places[0])]
    for place, response in zip(places, moved, strict=True):
        rows[place]["response"] = response
    path = dataset.with_stem(f"{dataset.stem}-mistakes")
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def table(proofs: dict[str, Proof]) -> list[str]:
    """The proofs as lines of a Markdown table."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    for name, proof in proofs.items():
        compared = {one.arm: one for one in proof.comparisons if one.metric == "loss"}
        for arm in proof.arms:
            one = compared.get(arm.name)
            interval = "" if one is None or one.interval is None else "{:+.4f} to {:+.4f}".format(*one.interval)
            difference = "" if one is None or one.difference is None else f"{one.difference:+.4f}"
            verdict = "" if one is None else one.verdict.replace("_", " ")
            cells = (name, arm.name, f"{arm.tokens:,.0f}", f"{arm.mean['loss']:.4f}", difference, interval, verdict)
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def file_name(name: str) -> str:
    """What the files of a proof of that name are called."""
    return name.replace("% ", "-")


def _prove(client: SpiceClient, request: dict[str, Any], console: Console) -> Proof:
    shown: set[str] = set()

    def show(proof: Proof) -> None:
        progress = proof.progress
        tenth = 0 if progress is None or not progress.total else 10 * progress.done // progress.total
        line = f"  {proof.stage or proof.state}" + (f" {10 * tenth}%" if tenth else "")
        if line not in shown:
            shown.add(line)
            console.print(line, highlight=False)

    proof = client.proofs.wait(client.proofs.submit(request), show=show)
    name = file_name(request["name"])
    (FILES / f"{name}.json").write_text(json.dumps(proof.document(), indent=2), encoding="utf-8")
    client.proofs.report(proof, FILES / f"{name}.html")
    return proof


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = parser_of("python -m demo.proof", __doc__, rows=320)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each arm (default: 5)")
    options = parser.parse_args(arguments)
    return carry_out("The proof", partial(run, options.rows, options.seeds))


if __name__ == "__main__":
    sys.exit(main())
