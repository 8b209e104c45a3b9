"""Every benchmark: a table on the terminal and benchmarks/results.json.

    python -m benchmarks [SUITE ...] [--quick]

With suites named or with --quick it is a look: results.json is left as it is.
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

SUITES = ("selector", "gradients", "gradients_distortion", "scaling", "service", "soak", "proof")
RESULTS = Path(__file__).with_name("results.json")


def measure(console: Console, suites: Iterable[str], *, quick: bool) -> list[BenchRow]:
    """The rows of the suites, each a module of this package with a function `rows`.

    Each in a process of its own: what one leaves in memory, and its threads, must not count in another's figures.
    """
    rows: list[BenchRow] = []
    for suite in suites:
        console.print(f"Measuring {suite} ...")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            rows += process.submit(rows_of, suite, quick=quick).result()
    return rows


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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes; the targets are set for the full ones")
    options = parser.parse_args(arguments)
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no suite is called {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")

    console = Console() if sys.stdout.isatty() else Console(width=160)
    rows = measure(console, options.suites or SUITES, quick=options.quick)
    print_table(console, rows)
    if not options.suites and not options.quick:
        text = json.dumps([row.as_json() for row in rows], indent=2) + "\n"
        RESULTS.write_text(text, encoding="utf-8")
        console.print("Written to benchmarks/results.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
