"""How a caller watches a selection and stops it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Stage = Literal["scanning", "picking", "certifying"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage of the selection is.

    Attributes:
        stage: "scanning" (norms of all rows), "picking" or "certifying" (gains left outside the set).
        done: Units done.
        total: Units in the stage.
        unit: "rows" or "picks".
    """

    stage: Stage
    done: int
    total: int
    unit: Literal["rows", "picks"]


class SelectionCancelledError(RuntimeError):
    """`should_stop` returned true; nothing was selected."""


class Watch:
    """The caller's two callbacks, asked at least once for each pick and each tile of rows."""

    def __init__(self, on_progress: Callable[[Progress], None] | None, should_stop: Callable[[], bool] | None) -> None:
        self._on_progress = on_progress
        self.should_stop = should_stop

    def step(self, stage: Stage, done: int, total: int) -> None:
        """Report progress and give the caller the chance to stop.

        Args:
            stage: What is being done.
            done: Units done so far.
            total: Units in the stage.

        Raises:
            SelectionCancelledError: If the caller wants to stop.
        """
        if self.should_stop is not None and self.should_stop():
            raise SelectionCancelledError(f"cancelled while {stage}, at {done} of {total}")
        if self._on_progress is not None:
            self._on_progress(Progress(stage, done, total, "picks" if stage == "picking" else "rows"))
