"""What a meter reports: units, tokens, and both by the second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workers.runtime.heartbeat import Meter

if TYPE_CHECKING:
    import pytest


class Recorder:
    """Stands in for the heartbeat that sends progress out."""

    def __init__(self) -> None:
        self.progress: dict[str, Any] = {}

    def set_progress(self, progress: dict[str, Any]) -> None:
        self.progress = progress


def test_tokens_are_counted_beside_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("workers.runtime.heartbeat.time.monotonic", lambda: clock[0])
    recorder = Recorder()
    meter = Meter(recorder, 10, "samples")  # type: ignore[arg-type]
    clock[0] += 2.0
    meter.add(3, tokens=300)
    clock[0] += 2.0
    meter.add(1, tokens=500)
    assert recorder.progress == {
        "done": 4,
        "total": 10,
        "unit": "samples",
        "rate": 1.0,
        "eta_s": 6.0,
        "tokens": 800,
        "tokens_per_s": 200.0,
    }


def test_work_without_tokens_says_so() -> None:
    recorder = Recorder()
    Meter(recorder, None, "rows").add(5)  # type: ignore[arg-type]
    assert (recorder.progress["tokens"], recorder.progress["tokens_per_s"]) == (None, None)


def test_a_moment_has_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three megabytes in a millisecond are no three gigabytes a second."""
    clock = [100.0]
    monkeypatch.setattr("workers.runtime.heartbeat.time.monotonic", lambda: clock[0])
    recorder = Recorder()
    meter = Meter(recorder, 3_000_000, "bytes")  # type: ignore[arg-type]
    clock[0] += 0.001
    meter.add(3_000_000)
    assert (recorder.progress["done"], recorder.progress["rate"], recorder.progress["eta_s"]) == (3_000_000, None, None)
