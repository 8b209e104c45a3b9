"""`make bench`: its command runs a suite in a process of its own, and a look leaves the results as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results.json"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_quick_look_prints_its_rows_and_keeps_the_results() -> None:
    before = RESULTS.read_bytes()
    command = [sys.executable, "-m", "benchmarks", "soak", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for row in ("service/soak_lost", "service/soak_doubled"):
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(row))
        assert line.split()[1:5] == ["0", "jobs", "0", "yes"], done.stdout
    assert RESULTS.read_bytes() == before
