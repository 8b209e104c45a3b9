"""Everything that a GPU does, checked and measured in one go: `make gpu`.

    python -m benchmarks.gpu [--device cuda] [--quick] [--out build/gpu.json]

Prints one table and writes one JSON. At most 8 minutes on one H100: a check that would begin later is not run, and says
so. `--device cpu --quick` is the rehearsal: the same code with tiny sizes on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_checks import CHECKS, Bench, Figure
from benchmarks.row import versions

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT_S = 480.0
"""Seconds after which no further check begins."""
OUT = Path("build/gpu.json")


@dataclass
class Report:
    """What a run found.

    Attributes:
        device: The card, by its own name.
        quick: Whether it was the rehearsal, whose figures say nothing.
        seconds: In all.
        figures: In the order of the checks.
        failed: Checks that raised, with the last line of what they raised.
        left: Checks for which no time was left.
    """

    device: str
    quick: bool
    machine: str = field(default_factory=platform.platform)
    versions: dict[str, str] = field(default_factory=versions)
    cuda: str | None = torch.version.cuda
    seconds: float = 0.0
    figures: list[Figure] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every check ran and every figure with a bound keeps it."""
        return not self.failed and not self.left and all(one.holds for one in self.figures)


def run(device: torch.device, *, quick: bool, names: Sequence[str] = tuple(CHECKS), limit_s: float = LIMIT_S) -> Report:
    """Run the checks of these names, in order."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    report, began = Report(name, quick), time.monotonic()
    bench = Bench(device, quick=quick, until=began + limit_s)
    for check in names:
        if time.monotonic() - began > limit_s:
            report.left.append(check)
            continue
        try:
            report.figures += CHECKS[check](bench)
        except Exception as error:  # noqa: BLE001 - the other checks still say something
            traceback.print_exc()
            report.failed[check] = f"{type(error).__name__}: {error}"
        bench.release()
    report.seconds = round(time.monotonic() - began, 1)
    return report


def table(report: Report) -> Table:
    """One line a figure."""
    made = Table(title=f"{report.device}{' (rehearsal)' if report.quick else ''}, {report.seconds:g} s", box=None)
    for heading in ("check", "value", "bound", "holds", "of what"):
        made.add_column(heading, overflow="fold")
    for one in report.figures:
        bound = "" if one.bound is None else f"{'at least' if one.larger_is_better else 'at most'} {one.bound:g}"
        holds = "" if one.bound is None else ("yes" if one.holds else "NO")
        made.add_row(one.name, f"{one.value:,.4g} {one.unit}", bound, holds, one.about)
    for name, error in report.failed.items():
        made.add_row(name, "failed", "", "NO", error)
    for name in report.left:
        made.add_row(name, "not run", "", "NO", "no time was left")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; the exit status says whether all holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)} (default: all)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose figures say nothing")
    parser.add_argument("--out", type=Path, default=OUT, help="the JSON")
    asked = parser.parse_args(arguments)
    device = torch.device(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device that torch sees: --device cpu --quick is the rehearsal")
    report = run(device, quick=asked.quick, names=asked.checks or tuple(CHECKS))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(asdict(report), indent=2) + "\n")
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table(report))
    console.print(f"Written to {asked.out}")
    return 0 if report.holds or report.quick else 1


if __name__ == "__main__":
    sys.exit(main())
