"""A proof's result in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.contracts.proof_result import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.core.contracts.proof_result import Comparison, Cost, Premise

UNITS = {"loss": "nats a token"}


def sentence_of(one: Comparison) -> str:
    """A comparison in words: how far apart the two are, how sure that is, what follows."""
    what = f"{one.arm} against {one.against}"
    if one.difference is None:
        return f"{what}, {one.metric}: no run of the two has the same seed."
    unit = f" {UNITS[one.metric]}" if one.metric in UNITS else ""
    size, direction = f"{abs(one.difference):.4f}", "lower" if one.difference < 0 else "higher"
    apart = f"is {size}{unit} {direction}" if float(size) else f"differs by less than 0.0001{unit}"
    found = f"{what}: {one.metric.replace('_', ' ')} {apart}"
    if one.interval is not None:
        found += f" (95% interval {one.interval[0]:+.4f} to {one.interval[1]:+.4f})"
    match one.verdict:
        case Verdict.EQUIVALENT:
            return f"{found}. Equivalent: less than {one.smallest_effect:g} does not matter."
        case Verdict.NOT_ENOUGH_RUNS:
            return f"{found}. Not enough runs: {_missing(one)}."
        case _:
            return f"{found}. {one.verdict.capitalize()}."


def _missing(one: Comparison) -> str:
    """What would decide a comparison that is not decided."""
    if one.seeds < 2:  # noqa: PLR2004 - one has no spread
        return "two seeds that both have are needed"
    if one.runs_needed is not None:
        return f"{one.runs_needed} seeds would decide it"
    return "more held-out rows are needed, or a larger smallest effect"


def premise_said(premise: Premise) -> str:
    """The premise as a sentence."""
    if premise.spearman is None:
        return "The subsets do not differ, so nothing is known of whether more information trains better."
    sure = ""
    if premise.interval is not None:
        low, high = premise.interval
        sure = f" (95%: {low:+.2f} to {high:+.2f})"
    return (
        f"Over {len(premise.points)} subsets, information and held-out gain have a rank correlation of "
        f"{premise.spearman:+.2f}{sure}."
    )


def cost_said(cost: Cost) -> str:
    """The cost as a sentence."""
    return (
        f"It took {cost.selection_s:,.0f} s of selection and {cost.training_s:,.0f} s of training ({cost.tokens:,} "
        f"tokens read), {cost.runs_trained} runs trained and {cost.runs_reused} found."
    )


def summary(
    comparisons: Sequence[Comparison], premise: Premise | None, cost: Cost | None, notes: Sequence[str]
) -> list[str]:
    """The whole result, a sentence or more each."""
    return [
        *(sentence_of(one) for one in comparisons),
        *([] if premise is None else [premise_said(premise)]),
        *([] if cost is None else [cost_said(cost)]),
        *notes,
    ]
