"""The figures of a published selection: statistics of the subset, and the methods side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.core.db.selections import MAIN
from workers.data.row_marks import Wanted, read_marks
from workers.data.sources import count_sources
from workers.stages.published_result import plain_normalize
from workers.stages.purposes import TARGET
from workers.statistics import subset
from workers.statistics.league import Ground, league
from workers.statistics.schedule import schedule_curve

if TYPE_CHECKING:
    from app.core.db.tables import Json
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.stages.published import Published


def statistics_of(context: WorkerContext, heartbeat: LeaseHeartbeat, published: Published) -> Json:
    """The statistics for the figures.

    Raises:
        Stopped: The job was cancelled or lost meanwhile.
    """
    main, corpus, tokens = published.main, published.reading.corpus, published.objective.tokens
    counted = None
    if published.source_column is not None:
        candidates, picked = np.zeros((2, corpus.rows_total), dtype=np.bool_)
        candidates[published.candidates.rows] = True
        picked[published.candidates.rows[main.indices]] = True
        counts = count_sources(
            published.reading.snapshot,
            context.settings,
            published.source_column,
            candidates,
            picked,
            heartbeat.should_stop,
        )
        counted = subset.sources(published.source_column, counts)
    wanted, windows = published.selection, published.windows
    return {
        "conflict_before_after": subset.conflict_before_after(
            published.candidates.values, main.indices, wanted.seed, heartbeat.should_stop
        ),
        "lengths": subset.lengths(tokens, main.indices),
        "sources": counted,
        "epsilon_conflict": subset.epsilon_conflict(main),
        "early_stop": None if windows else subset.early_stop(main, wanted.method, wanted.early_stop_ratio),
        "schedule": schedule_curve(windows) if windows else None,
        **_sensitivity(published),
    }


def _sensitivity(published: Published) -> Json:
    """The curves of a sweep, and how many picks are how sure."""
    found: Json = {}
    if published.chosen.sweep is not None:
        found["sweep"] = [
            {
                "conflict_penalty": one.point.conflict_penalty,
                "early_stop_ratio": one.point.early_stop_ratio,
                "alpha": one.point.alpha,
                "normalize": plain_normalize(one.normalize),
                "selected": one.point.k,
                "certificate": one.point.certificate,
                "shared": one.point.shared,
                **subset.short_curve(one.point.log_det),
            }
            for one in published.chosen.sweep
        ]
    stability = published.stability
    if stability is not None:
        shares = stability[published.main.indices]
        found["stability"] = np.histogram(shares[~np.isnan(shares)], bins=10, range=(0.0, 1.0))[0].tolist()
    return found


def league_of(context: WorkerContext, heartbeat: LeaseHeartbeat, published: Published) -> list[Json]:
    """The methods side by side.

    Raises:
        Stopped: The job was cancelled or lost meanwhile.
    """
    chosen, candidates, marks = published.chosen, published.candidates, None
    if published.source_column is not None and len(chosen.selections) > 1:
        wanted, reading = Wanted(source=published.source_column), published.reading
        marks = read_marks(
            reading.snapshot,
            reading.corpus.shape,
            reading.corpus.wanted,
            context.settings,
            wanted,
            heartbeat.should_stop,
        )
    target = published.objective.bearings.directions.get(TARGET)
    ground = Ground(
        sketches=candidates.values,
        tokens=published.objective.tokens,
        target=None if target is None else target.values,
        names=() if marks is None else marks.names,
        source=None if marks is None else marks.source[candidates.rows],
    )
    method = published.selection.method
    runs = {
        method if label == MAIN else label: [one, *chosen.repeats.get(label, ())]
        for label, one in chosen.selections.items()
    }
    return league(runs, method, ground)
