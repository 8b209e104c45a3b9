"""A selection made definite: valid rows, a number for alpha, a budget that can be met."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from workers.selection.config import ConfigError
from workers.selection.constraints import ConstraintError
from workers.selection.rounding import TIE

if TYPE_CHECKING:
    from torch import Tensor

    from workers.selection.config import SelectionConfig
    from workers.selection.constraints import Constraints
    from workers.selection.progress import Watch
    from workers.selection.sketches import Sketches

#: Below this the square of alpha = 1 / median is beyond float64; rows of float32 are never so small.
_SMALLEST_MEDIAN = 1e-150


class BudgetError(ValueError):
    """More rows were asked for than can be had.

    Attributes:
        budget: Rows asked for.
        limit: Rows that can be picked.
    """

    def __init__(self, budget: int, limit: int, why: str) -> None:
        super().__init__(f"budget is {budget} rows but at most {limit} can be picked: {why}")
        self.budget = budget
        self.limit = limit


@dataclass(frozen=True)
class Problem:
    """What every optimiser works on.

    Attributes:
        sketches: The rows.
        squared_norms: Shape (n,), float64.
        eligible: Shape (n,), bool: rows that may be picked for their gain (finite and not zero).
        alpha: Scale of the objective.
        penalty: Lambda, nats.
        budget: Rows to pick at most.
        early_stop_ratio: Omega or None.
        price: What each row's score loses whatever the set is, shape (n,), nats.
        scale: What each row's score is multiplied by, shape (n,), above 0.
        constraints: What the picks have to keep to, or None.
        rows_budget: Rows to pick as they were asked for; None where tokens alone were.
    """

    sketches: Sketches
    squared_norms: Tensor
    eligible: Tensor
    alpha: float
    penalty: float
    budget: int
    early_stop_ratio: float | None
    price: Tensor
    scale: Tensor
    constraints: Constraints | None = None
    rows_budget: int | None = None

    @cached_property
    def norms(self) -> Tensor:
        """Euclidean norms of all rows, shape (n,), float64."""
        return self.squared_norms.sqrt()

    @cached_property
    def widths(self) -> Tensor:
        """Half of how far scores may be apart that count as equal, by row: `TIE` of the most that a score is made of.

        Shape (n,), float64. It does not depend on the set, so that a bound on a score stays one with the width added.
        """
        return TIE * self.scale * (self.base_gains() + self.penalty + self.price)

    def base_gains(self) -> Tensor:
        """log(1 + alpha |z|^2) of every row, shape (n,), float64, nats."""
        return torch.log1p(self.alpha * self.squared_norms)


def posed_problem(
    sketches: Sketches, config: SelectionConfig, watch: Watch, constraints: Constraints | None = None
) -> tuple[Problem, Tensor]:
    """Check the rows and settle alpha.

    Args:
        sketches: The rows.
        config: The request.
        watch: The caller's callbacks.
        constraints: What the picks have to keep to.

    Returns:
        The problem, and the usable rows as a mask of shape (n,): those not excluded, zero or not.

    Raises:
        ConfigError: If alpha is "auto" and the rows are too small for it.
        InvalidRowsError: If rows are not finite.
        BudgetError: If fewer usable rows are left than the budget asks for.
        ConstraintError: If no selection can meet the constraints.
    """
    if constraints is not None:
        constraints.check_values(sketches.n, config.budget)
    elif config.budget is None:
        raise ConfigError("budget is None; a selection needs a budget of rows or of tokens")
    squared_norms = sketches.squared_norms(watch)
    sketches.check_finite(squared_norms)
    usable = torch.ones(sketches.n, dtype=torch.bool, device=squared_norms.device)
    excluded = np.empty(0, dtype=np.int64) if constraints is None else constraints.exclude
    count = sketches.n - len(np.unique(excluded))
    if config.budget is not None and config.budget > count:
        why = f"there are {sketches.n} rows, {len(excluded)} excluded"
        raise BudgetError(config.budget, count, why)
    problem = Problem(
        sketches=sketches,
        squared_norms=squared_norms,
        eligible=squared_norms > 0,
        alpha=settle_alpha(config.alpha, squared_norms),
        penalty=config.penalty,
        budget=count if config.budget is None else config.budget,
        early_stop_ratio=config.early_stop_ratio,
        price=torch.zeros_like(squared_norms),
        scale=torch.ones_like(squared_norms),
        rows_budget=config.budget,
    )
    if constraints is not None:
        usable[excluded] = False
        missing = constraints.include[~usable[constraints.include].cpu().numpy()]
        if len(missing):
            raise ConstraintError("include", f"row {missing[0]} of include is excluded")
        problem = constrained(problem, constraints)
        constraints.check_feasible(config.budget, problem.eligible.cpu().numpy())
    return problem, usable


def constrained(problem: Problem, constraints: Constraints) -> Problem:
    """The same problem for picks that keep to constraints.

    Args:
        problem: Without constraints.
        constraints: For its rows.
    """
    eligible = problem.eligible.clone()
    eligible[constraints.exclude] = False
    price = problem.price if constraints.price is None else torch.from_numpy(constraints.price).to(problem.price)
    return replace(problem, eligible=eligible, price=price, constraints=constraints)


def settle_alpha(alpha: float | str, squared_norms: Tensor) -> float:
    """The number behind alpha: itself, or 1 / median squared norm of the non-zero rows (1 if all are zero).

    Args:
        alpha: A positive number or "auto".
        squared_norms: Shape (n,), float64.

    Raises:
        ConfigError: If the rows are so small that 1 / median is not a number.
    """
    if not isinstance(alpha, str):
        return float(alpha)
    positive = squared_norms[squared_norms > 0]
    if positive.numel() == 0:
        return 1.0
    # numpy's median is the mean of the two middle values; torch's is the lower one.
    median = float(np.median(positive.cpu().numpy()))
    if median < _SMALLEST_MEDIAN:
        raise ConfigError(
            f"alpha is 'auto', 1 / median squared norm, and the median is {median:.3g}, below {_SMALLEST_MEDIAN:g}: "
            "multiply the sketches by a number or give alpha"
        )
    return 1.0 / median
