"""The league table as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spice_client.cli.league import print_league
from spice_client.models import League

if TYPE_CHECKING:
    import pytest

LINE = {"runs": 1, "rows": 12, "tokens": 3400.5, "log_det": 7.125, "mean_conflict": 0.0012, "overlap": 1.0}
VERDICT = {
    "proof_id": "7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a1",
    "metric": "loss",
    "against": "random",
    "difference": -0.02,
    "interval": [-0.03, -0.01],
    "verdict": "better",
}


def lines(capsys: pytest.CaptureFixture[str], methods: list[dict[str, object]]) -> list[str]:
    print_league(League.model_validate({"job_id": VERDICT["proof_id"], "methods": methods}))
    return capsys.readouterr().out.splitlines()


def test_methods_stand_in_lines_with_their_targets_sources_and_proofs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    target = {"target_covered": 3.5, "target_cosine": 0.25}
    head, first, second = lines(
        capsys,
        [
            {**LINE, **target, "method": "spice", "requested": True, "sources": {"code": 0.75}, "verdicts": [VERDICT]},
            {**LINE, **target, "method": "length", "requested": False, "overlap": 0.2},
        ],
    )
    assert " ".join(head.split()) == (
        "method rows tokens log-det conflict overlap target covered target cosine code proofs"
    )
    assert " ".join(first.split()) == "spice * 12 3,400 7.12 0.0012 1.00 3.50 0.250 75% better (loss against random)"
    assert " ".join(second.split()) == "length 12 3,400 7.12 0.0012 0.20 3.50 0.250 0%"


def test_columns_that_no_method_has_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    head, _ = lines(capsys, [{**LINE, "method": "spice", "requested": True}])
    assert head.split() == ["method", "rows", "tokens", "log-det", "conflict", "overlap", "proofs"]
