"""What a selection depends on: its constraints, its settings, the draw of its sketches and of its pool."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from workers.selection import Grid, cost_of, stability, sweep
from workers.stages.objective import at_other_lengths

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.contracts.selection_request import Normalize, SelectionSpec
    from workers.selection import Constraints, Cost, Selection, SelectionConfig, Stability, SweepPoint
    from workers.stages.candidates import Candidates
    from workers.stages.objective import Objective

Watched = dict[str, Any]
"""The callbacks of a selection: `on_progress` and `should_stop`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A combination of a sweep with what it gave.

    Attributes:
        normalize: How long gradients were.
        point: Everything else.
    """

    normalize: Normalize
    point: SweepPoint


@dataclass(slots=True)
class Chosen:
    """All that was selected for a job; indices are places among the candidates.

    Attributes:
        selections: By label, `main` among them.
        limits: The constraints that the main one was made within, or None.
        repeats: Further runs of the baselines that draw at random, by label.
        left_out: Why a baseline was left out, by label.
        cost: What the constraints cost, or None where there are none.
        sweep: The combinations of the sweep, or None where none was asked for.
        stability: How sure the picks are, likewise.
    """

    selections: dict[str, Selection]
    limits: Constraints | None
    repeats: dict[str, list[Selection]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    cost: Cost | None = None
    sweep: list[Setting] | None = None
    stability: Stability | None = None


@dataclass(frozen=True, slots=True)
class Reselecting:
    """Asks about a selection by selecting again, on the sketches that are there.

    Attributes:
        spec: What the request says of the selection.
        candidates: The rows that may be picked.
        objective: What is selected from.
        main: The selection.
        config: What it was made with.
        limits: The constraints that it was made within, or None.
        scratch: Directory for a matrix that is too large for memory.
        watched: The callbacks of each further selection.
    """

    spec: SelectionSpec
    candidates: Candidates
    objective: Objective
    main: Selection
    config: SelectionConfig
    limits: Constraints | None
    scratch: Path
    watched: Watched

    def cost(self) -> Cost | None:
        """What the constraints cost, against the greedy without them, whatever the method is; None without any."""
        if self.limits is None or not self.limits.bind:
            return None
        asked = self.config if self.config.climbs_objective else self.config.baseline("spice")
        return cost_of(self.objective.values, self.main, asked, self.limits, **self.watched)

    def sweep(self) -> list[Setting] | None:
        """Select with every combination of the settings that the request lists; None if it lists none."""
        asked, spec, config = self.spec.sweep, self.spec, self._config()
        if asked is None:
            return None
        grid = Grid(
            conflict_penalty=asked.conflict_penalty or (config.conflict_penalty,),
            early_stop_ratio=asked.early_stop_ratio or (config.early_stop_ratio,),
            alpha=asked.alpha or (spec.alpha,),
        )
        settings: list[Setting] = []
        for normalize in asked.normalize or (spec.normalize,):
            values = self.objective.values
            if normalize != spec.normalize:
                values = at_other_lengths(
                    self.candidates, self.objective, spec.model_copy(update={"normalize": normalize}), self.scratch
                )
            found = sweep(values, config, grid, self.limits, own=self.main.indices, **self.watched)
            settings += [Setting(normalize, point) for point in found]
        return settings

    def stability(self) -> Stability | None:
        """Select from other sketches and other pools as often as the request asks for; None if it does not."""
        asked = self.spec.stability
        if asked is None:
            return None
        return stability(
            self.objective.values,
            self._config(),
            self.limits,
            resketched=asked.sketches,
            bootstrap=asked.bootstrap,
            **self.watched,
        )

    def _config(self) -> SelectionConfig:
        """Limits by source are those of as many rows as came out."""
        config = replace(self.config, curvature=False)
        bound = self.limits is not None and self.limits.sources is not None
        return replace(config, budget=len(self.main.indices)) if bound else config
