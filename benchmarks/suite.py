"""One suite of benchmarks, to be run in a process of its own: such a process can't import what `__main__` defines."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.row import BenchRow


def rows_of(suite: str, *, quick: bool) -> list[BenchRow]:
    """What the module of that name in this package measures."""
    rows: list[BenchRow] = import_module(f"benchmarks.{suite}").rows(quick=quick)
    return rows
