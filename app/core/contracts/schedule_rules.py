"""What a schedule changes in the rest of a request: what it fills in, and what it can't be together with."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError

from app.core.contracts.schedule import Schedule

RANK = 16
"""Of the adapter, where a request with a schedule names none; its alpha is twice the rank."""
WINDOWED = ("spice", "fisher", "dpp", "grad_norm", "random")
"""Methods that pick from the gradients of a window and need nothing of other rows."""
_REASONS = {
    "less": "trains a warm-up of its own before it scores",
    "rds_plus": "takes turns among the rows of a target over the whole pool",
    "tsds": "spreads a target's rows over the whole pool",
    "ifd": "ranks all rows by the losses of one model",
    "selectit": "ranks all rows by the ratings of one model",
    "perplexity": "ranks all rows by the losses of one model",
    "length": "ranks all rows by their length, whatever the model",
    "grad_match": "weighs rows to stand for the whole pool",
    "facility_location": "weighs rows to stand for the whole pool",
}
_FILTERS = "go by figures of all rows, and rows are scored window by window with a model that changes"
_NOT_TOGETHER = {
    "target": "is sketched by one model, and a schedule's model changes",
    "protect": "is sketched by one model, and a schedule's model changes",
    "representative": "is a metric of all candidates under one model, and each window is picked from by itself",
    "sweep": "selects again from the same gradients, which are others once other picks were trained on",
    "stability": "selects again from the same gradients, which are others once other picks were trained on",
    "partitions": "are picked from side by side, and windows one after the other",
    "curvature": "is of one greedy over all rows, and a schedule has one for each window",
    "baselines": "pick from all rows at once by the gradients of one model",
}


def filled(given: Any) -> Any:  # noqa: ANN401 - whatever was sent
    """A request's body with what its schedule implies: the budget, no filters, no metric, the adapter's rank.

    A body that has no schedule, or is no body, is what it was.
    """
    if not isinstance(given, dict) or given.get("schedule") is None:
        return given
    selection, gradients = given.get("selection"), given.get("gradients")
    made = dict(given)
    if selection is None or isinstance(selection, dict):
        implied = {"budget": {"fraction": _fraction(given["schedule"])}, "filters": {}, "representative": 0}
        asked = selection or {}
        made["selection"] = {**asked, **{name: of for name, of in implied.items() if asked.get(name) is None}}
    if gradients is None or isinstance(gradients, dict):
        made["gradients"] = {"rank": RANK, "prompt_effect": False, **(gradients or {})}
    return made


def check(schedule: Schedule, request: dict[str, Any]) -> None:
    """Refuse what can't be together with a schedule.

    Args:
        schedule: Of the request.
        request: All of it, as plain values.

    Raises:
        ValueError: The message names the field and what to do.
    """
    _check_selection(schedule, request["selection"])
    _check_gradients(request["gradients"])
    if request["dataset"]["preference"] == "dpo":
        raise ValueError(
            "preference is 'dpo', and a schedule trains on the loss of one response: use 'chosen' or 'rejected'"
        )
    if request["extends"] is not None:
        raise ValueError(
            "extends keeps an earlier job's picks before all others, and a schedule picks from each window by itself: "
            "leave either out"
        )
    if request["limits"] is not None:
        raise ValueError("limits end a job between shards, and a schedule has none: leave limits out, or use timeout_s")


def _check_selection(schedule: Schedule, selection: dict[str, Any]) -> None:
    if (method := selection["method"]) not in WINDOWED:
        raise ValueError(
            f"selection.method {method!r} {_REASONS[method]}, and a schedule picks window by window: use "
            f"{', '.join(WINDOWED[:-1])} or {WINDOWED[-1]}, or leave schedule out"
        )
    asked = selection["budget"]["fraction"]
    if asked is None or not math.isclose(asked, schedule.fraction, rel_tol=1e-9):
        raise ValueError(
            f"selection.budget must be what the schedule keeps, keep / windows = {schedule.fraction:g} as a fraction: "
            "leave it out, or change schedule.keep"
        )
    if any((selection["filters"] or {}).values()):
        raise ValueError(f"selection.filters {_FILTERS}: leave it or schedule out")
    for name, reason in _NOT_TOGETHER.items():
        if selection[name]:
            raise ValueError(f"selection.{name} {reason}: leave it or schedule out")


def _check_gradients(gradients: dict[str, Any]) -> None:
    if gradients["target"] != "lora":
        raise ValueError(
            f"gradients.target is {gradients['target']!r}, and a schedule trains an adapter: use 'lora', or leave "
            "schedule out"
        )
    for name, none in (("adapter", None), ("warmup_steps", 0), ("preconditioner", "none")):
        if gradients[name] != none:
            raise ValueError(
                f"gradients.{name} is of one adapter, and a schedule trains a fresh one as it goes: leave it out"
            )


def _fraction(schedule: Any) -> float:  # noqa: ANN401 - whatever was sent
    """What a schedule keeps; 1 where it is none, which its own errors then say."""
    try:
        return Schedule.model_validate(schedule).fraction
    except ValidationError:
        return 1.0
