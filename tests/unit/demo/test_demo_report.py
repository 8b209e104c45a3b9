"""The demo's request and its reading of the answers, held to the service's own schemas and examples."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.core.contracts.job_request import JobRequest
from app.results.schemas import EXAMPLE_CONFLICTS, EXAMPLE_CURVE, EXAMPLE_SUBSET
from demo import progress, report
from demo.__main__ import request_for

ROWS = [
    {"prompt": f"question\n{number} [/x]", "source": "exam-de" if number % 2 else "puzzles"} for number in range(8000)
]


def printed(show: Any, *arguments: Any) -> str:
    console = Console(file=io.StringIO(), width=140)
    show(console, *arguments)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_request_is_one_that_the_service_takes() -> None:
    request = JobRequest.model_validate(request_for(Path("/some where/rows.jsonl")))
    assert request.selection.budget.fraction == 0.1
    assert request.dataset.uri == "file:///some%20where/rows.jsonl"


def test_picks_are_shown_in_order_with_gain_source_and_head() -> None:
    lines = printed(report.print_picks, ROWS, EXAMPLE_SUBSET).splitlines()
    assert lines[2].split() == ["812", "5.10", "puzzles", "question", "812", "[/x]"]
    assert [line.split()[0] for line in lines[2:]] == ["812", "40", "7731"]


def test_bars_of_small_conflicts_differ_in_their_names_and_empty_ones_are_left_out() -> None:
    conflicts = {**EXAMPLE_CONFLICTS, "histogram": {"edges": [0.0, 0.0001, 0.0002, 0.0003], "counts": [8, 0, 1]}}
    bars = [line for line in printed(report.print_conflicts, conflicts).splitlines() if " to " in line]
    assert [line.split()[:4] for line in bars] == [["0.0000", "to", "0.0001", "8"], ["0.0002", "to", "0.0003", "1"]]


def test_sources_are_counted_among_all_and_among_the_picked() -> None:
    lines = printed(report.print_sources, ROWS, EXAMPLE_SUBSET).splitlines()
    assert [line.split() for line in lines[2:]] == [["exam-de", "4000", "1", "0%"], ["puzzles", "4000", "2", "0%"]]


def test_the_curve_is_drawn_with_its_baseline() -> None:
    drawn = printed(report.print_curve, EXAMPLE_CURVE)
    assert "spice" in drawn
    assert "random" in drawn
    assert "\x1b" not in drawn


def test_conflicts_are_told_in_numbers_and_bars() -> None:
    told = printed(report.print_conflicts, EXAMPLE_CONFLICTS)
    assert "mean 0.013, largest 0.210, above 0 for 31% of the picks" in told
    assert "0.00 to 0.50" in told
    assert "0.50 to 1.00" not in told


def test_the_certificate_is_told_in_words() -> None:
    result = {
        "certificate": {"value": 0.914, "optimum_upper_bound": 110.0},
        "selected": 32,
        "log_det": 100.5,
        "rows_usable": 320,
        "baselines": {"random": {"log_det": 71.3, "mean_conflict": 0.02, "overlap": 0.08}},
    }
    told = printed(report.print_certificate, result)
    assert "32 picks hold 100.5 nats" in told
    assert "at least 91.4% of what the best" in " ".join(told.split())
    assert "`random` of the same size holds 71.3 nats" in told


@pytest.mark.parametrize(
    ("state", "described"),
    [
        (None, ""),
        (
            {"done": 96, "total": 320, "unit": "samples", "rate": 1.34, "eta_s": 167.4},
            "96 of 320 samples, 1.3/s, 2:47 left",
        ),
        ({"done": 96, "total": None, "unit": "rows", "rate": None, "eta_s": None}, "96 rows"),
        (
            {"done": 90000, "total": 95365, "unit": "bytes", "rate": 57123672.4, "eta_s": 0},
            "90.0 kB of 95.4 kB, 57.1 MB/s, 0:00 left",
        ),
    ],
)
def test_progress_is_described_by_what_is_known(state: dict[str, Any] | None, described: str) -> None:
    assert progress.describe(state) == described


@pytest.mark.parametrize("terminal", [True, False])
def test_the_last_state_of_a_job_is_handed_back(terminal: bool) -> None:
    def state(stage: str | None, done: int, name: str = "running") -> dict[str, Any]:
        of = {"done": done, "total": 320, "unit": "samples", "rate": 1.0, "eta_s": 320.0 - done}
        return {"state": name, "stage": stage, "progress": of if stage else None}

    jobs = [state(None, 0, "queued"), *(state("gradients", done) for done in range(320)), state("selecting", 0)]
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120)
    last = progress.show(console, [*jobs, {"state": "succeeded", "stage": None, "progress": None}])
    assert last["state"] == "succeeded"
    assert "A gradient for every row" in output.getvalue()
    if not terminal:
        assert 10 <= len(output.getvalue().splitlines()) <= 16
