"""How much the answer depends on lambda and omega."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from workers.selection.config import ConfigError, SelectionConfig
from workers.selection.partitioned import before_early_stop
from workers.selection.problem import pose
from workers.selection.progress import Progress, Watch
from workers.selection.selector import climb
from workers.selection.sketches import Sketches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from workers.selection.picked import Trace


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """What one pair of settings gives.

    Attributes:
        conflict_penalty: Lambda, nats.
        early_stop_ratio: Omega, or None for no early stop.
        k: Rows picked.
        log_det: F of them, nats.
        mean_conflict: Mean conflict of the picks, in [0, 1].
        indices: The picks, shape (k,), int64.
    """

    conflict_penalty: float
    early_stop_ratio: float | None
    k: int
    log_det: float
    mean_conflict: float
    indices: NDArray[np.int64]


def sweep(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    config: SelectionConfig,
    *,
    penalties: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 1.0),
    early_stop_ratios: Sequence[float | None] = (None, 0.1, 0.3, 0.5, 0.7),
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[SweepPoint]:
    """Select with every lambda and every omega.

    The rows are checked and measured once, and each lambda is selected once: stopping early changes no pick
    before the stop, so every omega is a prefix of the same sequence.

    Args:
        sketches: Shape (n, p), as for `select`.
        config: Everything but lambda and omega; method "spice", exact score, one global selection.
        penalties: Lambdas, nats.
        early_stop_ratios: Omegas in (0, 1]; None for no early stop.
        on_progress: As for `select`, over again for each lambda.
        should_stop: As for `select`.

    Returns:
        A point for each pair, lambda in the outer order.

    Raises:
        ConfigError: If the config is not such a selection, or a lambda or omega is out of its range.
        ValueError: What `select` raises.
    """
    if config.method != "spice" or config.fisher != "exact":
        raise ConfigError("a sweep needs method 'spice' with the exact score")
    settings = [replace(config, conflict_penalty=penalty, early_stop_ratio=None) for penalty in penalties]
    for ratio in early_stop_ratios:
        replace(config, early_stop_ratio=ratio)  # refuses a value out of range before any work is done
    watch = Watch(on_progress, should_stop)
    problem = pose(Sketches(sketches, config.device), config, watch)[0]
    points = []
    for setting in settings:
        trace = climb(replace(problem, penalty=setting.penalty, early_stop_ratio=None), watch).picked.trace()
        points += [_prefix(trace, setting.penalty, ratio) for ratio in early_stop_ratios]
    return points


def _prefix(trace: Trace, penalty: float, ratio: float | None) -> SweepPoint:
    k = before_early_stop(trace.gains, ratio)
    return SweepPoint(
        conflict_penalty=penalty,
        early_stop_ratio=ratio,
        k=k,
        log_det=float(trace.gains[:k].sum()),
        mean_conflict=float(trace.conflicts[:k].mean()) if k else 0.0,
        indices=trace.indices[:k],
    )
