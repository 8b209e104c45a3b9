"""Everything that a job publishes, as its turn hands it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.core.db.selections import MAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from app.core.contracts.job_result import Limited
    from app.core.contracts.schedule import ScheduleState
    from app.core.contracts.selection_request import SelectionSpec
    from app.core.db.tables import Json
    from workers.gradients.shards import Scored
    from workers.selection import Selection
    from workers.stages.candidates import Candidates
    from workers.stages.objective import Objective
    from workers.stages.reading import Reading
    from workers.stages.sensitivity import Chosen


@dataclass(frozen=True, slots=True)
class Beside:
    """A dataset that was read beside the job's own.

    Attributes:
        fingerprint: Of its file.
        sketches: Content key.
        samples: Its usable rows.
        computed: Of these, those whose sketches were computed for this job.
    """

    fingerprint: str
    sketches: str
    samples: int
    computed: int


@dataclass(frozen=True, slots=True)
class Published:
    """Everything that a job publishes.

    Attributes:
        reading: The dataset.
        candidates: What may be picked, and why other rows may not.
        objective: What was selected from, and within what.
        chosen: What was selected; indices are places among the candidates.
        figures: Figures of the usable rows that the methods need, by name.
        selection: The requested selection.
        source_column: Column that says where a row comes from, or None.
        sketches: Content key.
        scored: What the sketches are of; None where that was not kept.
        computed: Samples whose sketches were computed for this job; the others' were there, or another job's.
        limited: The limit of the request that kept samples from being scored, or None.
        windows: What the request's schedule came to, or None.
        beside: The datasets beside the job's own, by role.
        decontamination: The evaluation set that rows must not share text with; None without one.
        seconds: Time of each stage so far.
    """

    reading: Reading
    candidates: Candidates
    objective: Objective
    chosen: Chosen
    figures: Mapping[str, NDArray[np.float64]]
    selection: SelectionSpec
    source_column: str | None
    sketches: str
    scored: Scored | None
    computed: int
    limited: Limited | None
    windows: ScheduleState | None
    beside: Mapping[str, Beside]
    decontamination: Json | None
    seconds: dict[str, float]

    @property
    def main(self) -> Selection:
        """The selection that was asked for."""
        return self.chosen.selections[MAIN]

    @property
    def stability(self) -> NDArray[np.float64] | None:
        """Share of the reselections that pick each candidate, NaN where none had it; None where none was asked for."""
        return None if self.chosen.stability is None else self.chosen.stability.picked
