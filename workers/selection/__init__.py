"""Log-det selection with a conflict penalty: sketches in, picks and a certificate out.

    from workers.selection import SelectionConfig, select

    selection = select(sketches, SelectionConfig(budget=100))
    selection.indices, selection.log_det, selection.certificate

Needs numpy and torch, and nothing else of this repository. How it works and why it is exact: docs/selection.md.
"""

from workers.selection.config import ConfigError, Method, SelectionConfig
from workers.selection.constraints import ConstraintError, Constraints, Sources
from workers.selection.partitioned import PartPicks, merge, partition, select_part, select_partitioned, settle
from workers.selection.problem import BudgetError
from workers.selection.progress import Progress, SelectionCancelledError
from workers.selection.result import Dropped, Guarantees, Selection, StopReason
from workers.selection.selector import select, select_in_order
from workers.selection.sketches import InvalidRowsError, SketchShapeError
from workers.selection.sweep import SweepPoint, sweep

__all__ = [
    "BudgetError",
    "ConfigError",
    "ConstraintError",
    "Constraints",
    "Dropped",
    "Guarantees",
    "InvalidRowsError",
    "Method",
    "PartPicks",
    "Progress",
    "Selection",
    "SelectionCancelledError",
    "SelectionConfig",
    "SketchShapeError",
    "Sources",
    "StopReason",
    "SweepPoint",
    "merge",
    "partition",
    "select",
    "select_in_order",
    "select_part",
    "select_partitioned",
    "settle",
    "sweep",
]
