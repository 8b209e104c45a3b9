"""A partitioned selection in one process: what a job's workers do with its parts, one part after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.selection import merge, partition, select_part, settle

if TYPE_CHECKING:
    import numpy as np

    from workers.selection import Constraints, Selection, SelectionConfig


def select_in_parts(
    sketches: np.ndarray, config: SelectionConfig, parts: int, limits: Constraints | None = None
) -> Selection:
    """Settle the settings, select from each part, merge the picks."""
    settled = settle(sketches, config, limits)
    rows = partition(len(sketches), parts, config.seed)
    return merge(sketches, [select_part(sketches, part, settled, limits) for part in rows], settled, limits)
