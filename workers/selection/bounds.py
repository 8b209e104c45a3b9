"""What rows outside a set can add to it at most: F(S*) <= F(S) + sum over S* without S of their gains at S.

Each bound is the largest such sum over the sets that a constraint allows; the smallest of them holds for all together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from workers.selection.picked import Picked
    from workers.selection.problem import Problem
    from workers.selection.result import StopReason


def outside_bound(problem: Problem, picked: Picked, stop: StopReason) -> Callable[[Tensor], tuple[float, Tensor]]:
    """The smallest of the bounds that hold for a problem.

    The best set S* is that of as many rows as S, or after an early stop of as many tokens, where S has no full budget.

    Args:
        problem: With its constraints.
        picked: The set S.
        stop: Why it ended.

    Returns:
        From gains of all rows, shape (n,), nats, 0 for those of S, to the bound, and the rows that it is made of.
    """
    constraints, count = problem.constraints, len(picked.rows)
    if constraints is None or not constraints.bind:
        return lambda gains: largest_gains(gains, count)
    device, include = problem.norms.device, constraints.include
    rows = count if stop == "early_stop" else problem.rows_budget
    more = None if rows is None else rows - len(include)
    bounds: list[Callable[[Tensor], tuple[float, Tensor]]] = []
    if more is not None:
        bounds.append(lambda gains: largest_gains(gains, more))
    if constraints.sources is not None:
        sources = constraints.sources
        held = np.bincount(sources.of_row[include], minlength=len(sources.names))
        of_row, room = (torch.from_numpy(part).to(device) for part in (sources.of_row, sources.most - held))
        bounds.append(lambda gains: largest_of_sources(gains, of_row, room, more))
    if constraints.token_budget is not None and constraints.tokens is not None:
        tokens = torch.from_numpy(constraints.tokens).to(device)
        budget = int(constraints.tokens[picked.rows].sum()) if stop == "early_stop" else constraints.token_budget
        capacity = budget - int(constraints.tokens[include].sum())
        bounds.append(lambda gains: fractional_knapsack(gains, tokens, capacity))
    return lambda gains: min((bound(gains) for bound in bounds), key=lambda found: found[0])


def largest_gains(gains: Tensor, count: int) -> tuple[float, Tensor]:
    """The sum of the `count` largest gains, nats, and their rows."""
    top = gains.topk(min(count, len(gains)))
    return float(top.values.sum()), top.indices


def largest_of_sources(gains: Tensor, of_row: Tensor, room: Tensor, count: int | None) -> tuple[float, Tensor]:
    """The largest sum of gains of at most `count` rows, at most so many of each source, nats; and its rows.

    Args:
        gains: Shape (n,), nats.
        of_row: Source of each row, shape (n,), int64.
        room: Most rows of each source, shape (g,), int64.
        count: Rows in all, or None for as many as the sources have room for.
    """
    order = gains.argsort(descending=True, stable=True)
    by_source = order[of_row[order].argsort(stable=True)]
    sources = of_row[by_source]
    first = torch.searchsorted(sources, torch.arange(len(room), device=sources.device))
    place = torch.arange(len(sources), device=sources.device) - first[sources]
    rows = by_source[place < room[sources]]
    if count is None:
        return float(gains[rows].sum()), rows
    value, at = largest_gains(gains[rows], count)
    return value, rows[at]


def fractional_knapsack(gains: Tensor, tokens: Tensor, capacity: int) -> tuple[float, Tensor]:
    """The largest sum of gains of rows, or shares of rows, with so many tokens, nats; and its rows.

    Args:
        gains: Shape (n,), nats.
        tokens: Of each row, shape (n,), int64. Rows with more tokens than the capacity are left out.
        capacity: Tokens in all.
    """
    fits = torch.nonzero((tokens <= capacity) & (gains > 0)).flatten()
    order = fits[(gains[fits] / tokens[fits]).argsort(descending=True, stable=True)]
    spent = tokens[order].cumsum(0)
    whole = int(torch.searchsorted(spent, capacity, right=True))
    rows = order[: whole + 1]
    value = gains[order[:whole]].sum()
    if whole < len(order):
        before = int(spent[whole - 1]) if whole else 0
        value = value + gains[order[whole]] * ((capacity - before) / tokens[order[whole]])
    return float(value), rows
