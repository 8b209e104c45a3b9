"""A line of the benchmark table, and of benchmarks/results.json."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "numpy", "submodlib-py", "apricot-select", "bergson", "traker")


def machine() -> str:
    """The processor and the memory, in words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
        wide = [name for name in ("avx512f", "avx2") if any(f" {name} " in line for line in lines)]
        model += f" ({', '.join(wide)})" if wide else ""
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} cores of {model}, {gigabytes:.0f} GB, Python {platform.python_version()}"


def versions() -> dict[str, str]:
    """Versions of what is measured and measured against; absent packages are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class BenchRow:
    """One figure, measured in this run against a named baseline of this run.

    `target` None marks a figure that is reported without a promise; it always holds.
    """

    name: str
    value: float
    unit: str
    target: float | None
    baseline: str
    smaller_is_better: bool = False
    machine: str = field(default_factory=machine)
    versions: dict[str, str] = field(default_factory=versions)

    @property
    def holds(self) -> bool:
        """Whether the value reaches the target: counts of what went wrong from above, all others from below."""
        if self.target is None:
            return True
        return self.value <= self.target if self.smaller_is_better else self.value >= self.target

    def as_json(self) -> dict[str, object]:
        """The row as results.json has it."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "target": self.target,
            "holds": self.holds,
            "baseline": self.baseline,
            "machine": self.machine,
            "versions": self.versions,
        }
