"""`make gpu` rehearsed on the CPU: every check runs, and the table and the JSON hold what it found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu import main, run
from benchmarks.gpu_checks import CHECKS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

EXPECTED = {
    *(f"precision/{what}_{dtype}" for what in ("rows", "cosines", "picks") for dtype in ("float32", "bfloat16")),
    *(f"{check}/{dtype}" for check in ("determinism", "independence") for dtype in ("float32", "bfloat16")),
    *("speed/tiny", "speed/tiny_vs_training_step", "memory/halved_rows", "workers/two_vs_one"),
    *("selection/device", "selection/vs_cpu", "selection/same_picks"),
}


def test_every_check_runs_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "gpu.json"
    assert main(["--device", "cpu", "--quick", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert (report["device"], report["quick"], report["failed"], report["left"]) == ("cpu", True, {}, [])
    figures = {one["name"]: one for one in report["figures"]}
    assert set(figures) >= EXPECTED
    for name in ("precision/rows_float32", "independence/float32", "memory/halved_rows"):
        assert figures[name]["value"] <= figures[name]["bound"], name
    assert figures["determinism/float32"]["value"] == figures["selection/same_picks"]["value"] == 1
    assert "speed/tiny" in capsys.readouterr().out


def test_a_check_that_fails_or_comes_too_late_is_said_and_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKS, "spread", lambda _: 1 / 0)
    report = run(torch.device("cpu"), quick=True, names=["spread"])
    assert report.failed == {"spread": "ZeroDivisionError: division by zero"}
    late = run(torch.device("cpu"), quick=True, names=["selection"], limit_s=-1)
    assert late.left == ["selection"]
    assert not report.holds
    assert not late.holds
