"""Every benchmark: a table on the terminal and benchmarks/results.json.

    python -m benchmarks [SUITE ...] [--quick | --write]

With suites named or with --quick it is a look: results.json is left as it is, unless --write puts the figures of the
named suites in place of theirs.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.suite import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.row import BenchRow

SUITES = (
    "selector",
    "gradients",
    "gradients_distortion",
    "scaling",
    "reading_together",
    "service",
    "jobs",
    "soak",
    "dirty",
    "proof",
    "purpose",
)
RESULTS = Path(__file__).with_name("results.json")


def measure(suite: str, *, quick: bool) -> list[BenchRow]:
    """The rows of a suite, which is a module of this package with a function `rows`.

    It runs in a process of its own: what one suite leaves in memory, and its threads, must not count in another's
    figures.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(rows_of, suite, quick=quick).result()


def print_table(console: Console, rows: Iterable[BenchRow]) -> None:
    """One line a row; a target that was missed stands out."""
    table = Table(box=None, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    table.add_column("value", no_wrap=True, justify="right")
    table.add_column("target", no_wrap=True, justify="right")
    table.add_column("holds", no_wrap=True)
    table.add_column("against", overflow="fold")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:,.4g} {row.unit}",
            "" if row.target is None else f"{row.target:g}",
            "" if row.target is None else ("yes" if row.holds else "[bold red]no[/bold red]"),
            row.baseline,
        )
    console.print(table)


def write(rows: Iterable[BenchRow], *, keep: bool) -> None:
    """Write rows to results.json; `keep` leaves the rows of other names that are there."""
    measured = {row.name: row.as_json() for row in rows}
    before = {row["name"]: row for row in json.loads(RESULTS.read_text(encoding="utf-8"))} if keep else {}
    RESULTS.write_text(json.dumps([*(before | measured).values()], indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes; the targets are set for the full ones")
    parser.add_argument("--write", action="store_true", help="write the named suites' figures to results.json")
    options = parser.parse_args(arguments)
    if options.quick and options.write:
        parser.error("the figures of --quick are not those of the promises: leave out --quick or --write")
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no suite is called {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")

    console = Console() if sys.stdout.isatty() else Console(width=160)
    rows: list[BenchRow] = []
    failed: list[str] = []
    for suite in options.suites or SUITES:
        console.print(f"Measuring {suite} ...")
        try:
            measured = measure(suite, quick=options.quick)
        except Exception:  # noqa: BLE001 - the other suites' figures, half an hour of them, must not go with it
            console.print_exception()
            failed.append(suite)
        else:
            print_table(console, measured)
            rows += measured
    if options.write or not (options.suites or options.quick):
        write(rows, keep=bool(options.suites or failed))
        console.print("Written to benchmarks/results.json")
    if failed:
        console.print(f"Failed: {', '.join(failed)}; their figures in benchmarks/results.json are of an earlier run")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
