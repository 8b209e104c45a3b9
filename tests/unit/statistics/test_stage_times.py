"""How long gradients take, by those of some rows: with a clock that the rows drive."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from workers.data.stopping import Stopped
from workers.gradients.config import GradientConfig
from workers.gradients.passes import BatchDone
from workers.runtime.failures import JobError
from workers.stages import stage_times

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS = 100
"""Of each row."""


class Machine:
    """A worker, its model and its engine; every row takes so many seconds."""

    def __init__(self, seconds_a_row: float) -> None:
        self.now = 0.0
        self.device = "cpu"
        self.settings = SimpleNamespace(token_budget=1024)
        self._seconds_a_row = seconds_a_row

    def model(self, *_args: object, **_settings: object) -> SimpleNamespace:
        return SimpleNamespace(batch_tokens=lambda budget: budget)

    def engine(self, *_args: object) -> Machine:
        return self

    def sketch(
        self,
        rows: list[int],
        *,
        unprompted: None,
        on_batch: Callable[[BatchDone], None],
        should_stop: Callable[[], bool],
    ) -> None:
        assert unprompted is None
        self.now += self._seconds_a_row * len(rows)
        if should_stop():
            raise Stopped
        tokens = TOKENS * len(rows)
        on_batch(BatchDone(len(rows), tokens, tokens, 1024))


class Rows(list[int]):
    def longest(self) -> tuple[int, int]:
        return 0, TOKENS


def probed(seconds_a_row: float, monkeypatch: pytest.MonkeyPatch) -> float:
    machine: Any = Machine(seconds_a_row)
    rows: Any = Rows(range(320))
    source: Any = SimpleNamespace(
        request=SimpleNamespace(model=SimpleNamespace(dtype="float32", devices="one")),
        gradients=GradientConfig(),
        adapter=None,
    )
    monkeypatch.setattr(stage_times, "time", SimpleNamespace(monotonic=lambda: machine.now))
    return stage_times.probe(machine, source, rows, rows, lambda: False)


@pytest.mark.parametrize("seconds_a_row", [0.01, 0.55, 1.2, 2.4])
def test_a_slow_machine_is_timed_by_as_many_rows_as_it_can(
    seconds_a_row: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.4 s a row: 4 rows to set up and 4 timed are done within 20 s; 36, which were once the fewest, are not."""
    assert probed(seconds_a_row, monkeypatch) == pytest.approx(seconds_a_row / TOKENS)


def test_a_machine_that_is_too_slow_for_eight_rows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobError, match="the gradients of 8 rows took more than 20 s on cpu"):
        probed(2.6, monkeypatch)
