"""Peak memory of sketching, in a process of its own for each measurement.

    python -m benchmarks.gradients_memory TOKEN_BUDGET ROWS

prints, in bytes, what was resident with the model loaded and the engine made, and the most that was resident while the
rows were sketched (VmHWM, set back in between, so that loading the model does not count).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.row import BenchRow
from benchmarks.smollm2 import smollm2_directory
from workers.data.samples import Sample
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.models.proxy import load_model

TOKENS = 204
"""Of every row: 5 make a batch of 1,024, 20 one of 4,096."""
SMALL, LARGE = 1024, 4096
ROWS = 20


def resident(field: str) -> int:
    """Bytes of this process by /proc: VmRSS or VmHWM."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def measure(budget: int, rows: int) -> tuple[int, int]:
    """Bytes before and at the peak, in this process."""
    torch.set_num_threads(2)
    model = load_model(smollm2_directory(), dtype="float32", device=torch.device("cpu"))
    engine = GradientEngine(model, GradientConfig(token_budget=budget))
    random = np.random.default_rng(0)
    samples = [
        Sample(row, random.integers(1000, 40_000, TOKENS).astype(np.int32), np.arange(TOKENS) >= TOKENS // 2)
        for row in range(rows)
    ]
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, at what is resident now
    before = resident("VmRSS")
    engine.sketch(samples)
    return before, resident("VmHWM")


def in_a_process(budget: int, rows: int) -> tuple[int, int]:
    """As `measure`, of a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.gradients_memory", str(budget), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    before, peak = done.stdout.split()[-2:]
    return int(before), int(peak)


def row(*, quick: bool) -> BenchRow:
    """The peak at a small budget, with what it is at a large one and over twice the rows beside it."""
    rows = 5 if quick else ROWS
    before, small = in_a_process(SMALL, rows)
    _, twice = in_a_process(SMALL, 2 * rows)
    _, large = in_a_process(LARGE, rows)
    mib = 1 << 20
    return BenchRow(
        name="gradients/peak_memory",
        value=round(small / mib),
        unit="MiB",
        target=None,
        baseline=f"resident at the most at a token budget of {SMALL}: {small / mib:,.0f} MiB, over twice the rows "
        f"{twice / mib:,.0f}, at a budget of {LARGE} {large / mib:,.0f}; {before / mib:,.0f} before the first row; "
        f"SmolLM2-135M, float32, LoRA, {rows} rows of {TOKENS} tokens, a process each",
    )


if __name__ == "__main__":
    print(*measure(int(sys.argv[1]), int(sys.argv[2])))
