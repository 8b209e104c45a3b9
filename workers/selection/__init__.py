"""Log-det selection with a conflict penalty: sketches in, picks and a certificate out.

    from workers.selection import SelectionConfig, select

    selection = select(sketches, SelectionConfig(budget=100))
    selection.indices, selection.log_det, selection.certificate

Needs numpy and torch, and nothing else of this repository. How it is used: docs/selection.md; why it is
exact: docs/selection-proofs.md.
"""

from workers.selection.config import ConfigError, Method, SelectionConfig
from workers.selection.constraints import ConstraintError, Constraints, Sources
from workers.selection.cost import Cost, CostOfOne, cost_of
from workers.selection.facility_location import facility_location, nearest_picks
from workers.selection.matching_pursuit import Matched, matching_pursuit
from workers.selection.nearest import by_turns
from workers.selection.partitioned import PartPicks, merge, partition, select_part, settle
from workers.selection.problem import BudgetError
from workers.selection.progress import Progress, SelectionCancelledError
from workers.selection.ranked import by_score, helped_by_prompt, influences, middle_third, ratings
from workers.selection.result import Guarantees, Selection, StopReason
from workers.selection.selector import select, select_in_order
from workers.selection.shares import Shares, select_in_shares
from workers.selection.sketches import InvalidRowsError, SketchShapeError
from workers.selection.stability import Stability, stability
from workers.selection.sweep import Grid, SweepPoint, sweep
from workers.selection.target import Metric, Reach, cosines, metric, prices, reach
from workers.selection.transport import Transport, transport
from workers.selection.window_shares import Course, WindowShares, select_in_window

__all__ = [
    "BudgetError",
    "ConfigError",
    "ConstraintError",
    "Constraints",
    "Cost",
    "CostOfOne",
    "Course",
    "Grid",
    "Guarantees",
    "InvalidRowsError",
    "Matched",
    "Method",
    "Metric",
    "PartPicks",
    "Progress",
    "Reach",
    "Selection",
    "SelectionCancelledError",
    "SelectionConfig",
    "Shares",
    "SketchShapeError",
    "Sources",
    "Stability",
    "StopReason",
    "SweepPoint",
    "Transport",
    "WindowShares",
    "by_score",
    "by_turns",
    "cosines",
    "cost_of",
    "facility_location",
    "helped_by_prompt",
    "influences",
    "matching_pursuit",
    "merge",
    "metric",
    "middle_third",
    "nearest_picks",
    "partition",
    "prices",
    "ratings",
    "reach",
    "select",
    "select_in_order",
    "select_in_shares",
    "select_in_window",
    "select_part",
    "settle",
    "stability",
    "sweep",
    "transport",
]
