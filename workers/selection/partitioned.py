"""One selection spread over processes or machines: RandGreeDi (Barbosa et al., ICML 2015).

    config = settle(sketches, config)                        # one alpha for all
    parts = partition(n, 8, config.seed)                     # the same in every process
    picks = [select_part(sketches, rows, config) for rows in parts]   # round 1: anywhere, in any order
    selection = merge(sketches, picks, config)               # round 2

Each row goes to one of m parts, independently and uniformly at random. Round 1 is the exact greedy inside each part;
round 2 the exact greedy over all parts' picks; the better of round 2's set and the best part's set is returned. With k
the budget, S* the best k rows and the expectation over the partition,

    E F(S) >= rho (F(S*) / 2 - k lambda),   rho = 1 - (1 - 1/k)^k >= 1 - 1/e,

so (1/2)(1 - 1/e) F(S*) without a penalty; derived in docs/selection-proofs.md. That is in expectation and without an
early stop. What is proven about the set at hand is its certificate, which is measured against all rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.selection.arithmetic import set_arithmetic
from workers.selection.config import ConfigError, SelectionConfig
from workers.selection.problem import Problem, constrained, posed_problem
from workers.selection.progress import Progress, Watch
from workers.selection.seeds import random_words
from workers.selection.selector import climb, followed, report
from workers.selection.sketches import InvalidRowsError, Sketches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from workers.selection.constraints import Constraints
    from workers.selection.result import Selection, StopReason


@dataclass(frozen=True, slots=True)
class PartPicks:
    """What one part contributes.

    Attributes:
        indices: Row numbers in the whole pool, in the order of picking, shape (k,), int64; fewer than the budget
            where the part has fewer rows that are not zero.
        marginal_gains: Gain of each pick given those before it, shape (k,), float64, nats.
    """

    indices: NDArray[np.int64]
    marginal_gains: NDArray[np.float64]


def partition(n: int, parts: int, seed: int) -> list[NDArray[np.int64]]:
    """Send each row to one of the parts, independently and uniformly at random.

    The parts' sizes differ by a few sqrt(n / parts): the proof wants independent draws, not equal sizes.

    Args:
        n: Number of rows.
        parts: Number of parts m, at least 1.
        seed: Of the draw: the same numbers give the same parts in every process, whatever its numpy.

    Returns:
        The row numbers of each part, ascending, int64; a part may be empty where n is small.

    Raises:
        ConfigError: If there is not at least one part.
    """
    if parts < 1:
        raise ConfigError(f"parts is {parts}; it must be at least 1")
    drawn = random_words(n, seed=seed, role="part", layer="") % np.uint64(parts)
    return [np.flatnonzero(drawn == part) for part in range(parts)]


def settle(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    config: SelectionConfig,
    constraints: Constraints | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SelectionConfig:
    """Check the request against all rows and put a number in place of alpha = "auto".

    Args:
        sketches: All rows, shape (n, p), as for `select`.
        config: A global selection by spice or fisher with the exact score.
        constraints: As for `select`.
        on_progress: As for `select`; one pass over the rows.
        should_stop: As for `select`.

    Returns:
        The config that every part and the merge have to be given.

    Raises:
        ConfigError: If the config is not such a selection.
        ValueError: What `select` raises.
    """
    set_arithmetic()
    _check(config)
    problem = posed_problem(Sketches(sketches, config.device), config, Watch(on_progress, should_stop), constraints)[0]
    return replace(config, alpha=problem.alpha)


def select_part(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    rows: NDArray[np.int64],
    config: SelectionConfig,
    constraints: Constraints | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> PartPicks:
    """Round 1: the exact greedy among the rows of one part, up to the whole budget.

    An early stop is left to the merge: a part that stopped by itself would keep back rows that the others lack.

    Args:
        sketches: All rows, shape (n, p), as for `select`; only those of the part are read.
        rows: The part, ascending, shape (m,), int64.
        config: From `settle`.
        constraints: As for `select`, about all rows. The rows that have to be in the set are in each part's, and a
            source gives its fewest rows as far as the part has them.
        on_progress: As for `select`.
        should_stop: As for `select`.

    Returns:
        The picks of the part.

    Raises:
        ConfigError: If the config does not come from `settle`.
        InvalidRowsError: If rows of the part hold NaN or inf.
        SelectionCancelledError: If `should_stop` returned True.
    """
    set_arithmetic()
    _check(config)
    _settled_alpha(config)
    if len(rows) == 0:
        return PartPicks(np.empty(0, dtype=np.int64), np.empty(0))
    watch = Watch(on_progress, should_stop)
    whole = Sketches(sketches, config.device)
    if constraints is not None:
        rows = np.union1d(rows, constraints.include)
    part = whole.subset(torch.from_numpy(rows).to(whole.device))
    try:
        problem, _ = posed_problem(part, replace(config, budget=1), watch)
    except InvalidRowsError as error:
        raise InvalidRowsError(rows[error.rows], error.reasons) from None
    budget = len(rows) if config.budget is None else min(config.budget, len(rows))
    problem = replace(problem, budget=budget, early_stop_ratio=None)
    if constraints is not None:
        problem = constrained(problem, constraints.of(rows))
    trace = climb(problem, watch).picked.trace()
    return PartPicks(rows[trace.indices], trace.gains)


def merge(
    sketches: Any,  # noqa: ANN401 - numpy or torch
    parts: Sequence[PartPicks],
    config: SelectionConfig,
    constraints: Constraints | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Selection:
    """Round 2: the exact greedy over all parts' picks, and the better of its set and the best part's.

    Args:
        sketches: All rows, shape (n, p), as for `select`: the certificate is about all of them.
        parts: The picks of every part, in any order.
        config: From `settle`.
        constraints: As for `select`. With them round 2's set is returned: a part's need not meet them.
        on_progress: As for `select`.
        should_stop: As for `select`.

    Returns:
        The selection. `guarantees.additive_bound` is None: the guarantee of this method is one in expectation.

    Raises:
        ConfigError: If the config does not come from `settle`.
        ValueError: What `select` raises.
    """
    set_arithmetic()
    _check(config)
    _settled_alpha(config)
    watch = Watch(on_progress, should_stop)
    problem, _ = posed_problem(Sketches(sketches, config.device), config, watch, constraints)
    order, reached, stop = _second_round(problem, parts, watch)
    for part in parts if constraints is None else ():
        kept = before_early_stop(part.marginal_gains, config.early_stop_ratio)
        if part.marginal_gains[:kept].sum() > reached:
            reached = float(part.marginal_gains[:kept].sum())
            order = _filled(part.indices[:kept], order if kept == len(part.indices) else order[:0])
            stop = "early_stop" if kept < len(part.indices) else "budget" if len(order) == config.budget else stop
    return report(problem, followed(problem, order, stop, watch), config, watch, theorem_holds=False)


def _second_round(
    problem: Problem, parts: Sequence[PartPicks], watch: Watch
) -> tuple[NDArray[np.int64], float, StopReason]:
    """The greedy over the union: row numbers in the whole pool, F of them in nats, and why it ended."""
    union = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *[part.indices for part in parts]]))
    if problem.constraints is not None:
        union = np.union1d(union, _needed(problem.constraints, problem.eligible.cpu().numpy()))
    if union.size == 0:
        return union, 0.0, "exhausted"
    rows = torch.from_numpy(union).to(problem.sketches.device)
    pool = replace(
        problem,
        sketches=problem.sketches.subset(rows),
        squared_norms=problem.squared_norms[rows],
        eligible=problem.eligible[rows],
        price=problem.price[rows],
        scale=problem.scale[rows],
        constraints=None if problem.constraints is None else problem.constraints.of(union),
    )
    found = climb(pool, watch)
    trace = found.picked.trace()
    return union[trace.indices], float(trace.gains.sum()), found.stop


def _needed(constraints: Constraints, eligible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows that round 2 needs whatever the parts picked: those of `include`, and each source's shortest few."""
    needed = [constraints.include]
    sources = constraints.sources
    if sources is not None:
        tokens = np.ones(len(eligible), dtype=np.int64) if constraints.tokens is None else constraints.tokens
        for source, least in enumerate(sources.least):
            mine = np.flatnonzero(eligible & (sources.of_row == source))
            needed.append(mine[np.argsort(tokens[mine], kind="stable")[:least]])
    return np.concatenate(needed)


def _filled(picks: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """The picks of a part that was too small for the budget, and as many of others as round 2's set is larger."""
    return np.concatenate([picks, others[~np.isin(others, picks)][: max(0, len(others) - len(picks))]])


def before_early_stop(gains: NDArray[np.float64], ratio: float | None) -> int:
    """How many picks an early stop would have kept: it changes nothing before the stop.

    Args:
        gains: Marginal gains in the order of picking, shape (k,), nats.
        ratio: Omega in (0, 1], or None for no early stop.
    """
    if ratio is None or gains.size == 0:
        return len(gains)
    stops = np.flatnonzero(gains[1:] <= ratio * gains[0])
    return int(stops[0]) + 1 if stops.size else len(gains)


def _check(config: SelectionConfig) -> None:
    if not config.climbs_objective:
        raise ConfigError(f"parts need spice or fisher with the exact score; got {config.method!r}, {config.fisher!r}")


def _settled_alpha(config: SelectionConfig) -> None:
    if isinstance(config.alpha, str):
        raise ConfigError("alpha is 'auto', which would differ between parts; settle() puts a number in its place")
