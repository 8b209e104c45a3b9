"""Why a row of a dataset cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from workers.data.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one row cannot be used, with what is known besides.

    Attributes:
        reason: The reason.
        said: The chat template's own words, or ours.
        needed: Tokens that ``max_length`` would have to be for the row to be used whole.
    """

    reason: Reason
    said: str = ""
    needed: int = 0


class Reason(StrEnum):
    """A reason to leave one row out; the row's number is reported with it and the job goes on."""

    INVALID_UTF8 = "invalid_utf8"
    """The row's bytes are not UTF-8, or a JSON escape spells half of a surrogate pair."""
    INVALID_JSON = "invalid_json"
    """The row is not JSON, or not an object."""
    DUPLICATE_KEY = "duplicate_key"
    """An object names a key twice: which value counts is anybody's guess."""
    NESTED_TOO_DEEP = "nested_too_deep"
    """The JSON is nested beyond what the parser follows (about 1,000 levels)."""
    RAGGED_ROW = "ragged_row"
    """A CSV row has more or fewer cells than the header."""
    ROW_TOO_LONG = "row_too_long"
    """The row is longer than ``row_max_bytes``."""
    MISSING_VALUE = "missing_value"
    """A column that is needed is absent or null in this row."""
    WRONG_TYPE = "wrong_type"
    """A value is of another type than its column needs: a number for text, an unknown role, ..."""
    EMPTY_RESPONSE = "empty_response"
    """There is no response to learn from, or it is white space only."""
    RESPONSE_TRUNCATED = "response_truncated"
    """The prompt alone fills ``max_length``: no token of the response is left."""
    TEMPLATE_REFUSED = "template_refused"
    """The model's chat template raises on this conversation, for example for two user turns in a row."""
    TEMPLATE_NOT_PREFIX_STABLE = "template_not_prefix_stable"
    """What the chat template writes does not show where the responses are."""
    UNDESIRABLE = "undesirable"
    """The row's label says that its response is not desired. Such rows are left out, and count as no fault."""
    NON_FINITE_GRADIENT = "non_finite_gradient"
    """The model's loss or gradient of this row is NaN or infinite."""


NO_FAULT = frozenset({Reason.UNDESIRABLE})
"""Reasons to leave a row out that are what the request asks for."""


def enforce_limit(
    rejected: Mapping[Reason, Sequence[int] | NDArray[np.int64]],
    rows_total: int,
    max_rejected_fraction: float = 0.05,
    *,
    said: Mapping[Reason, str] | None = None,
    needed: int = 0,
) -> None:
    """Fail a dataset of which too many rows cannot be used.

    Args:
        rejected: 0-based row numbers by reason.
        rows_total: Rows of the dataset, the rejected included.
        max_rejected_fraction: In [0, 1]; more than this share of rows is too much.
        said: What is known of the first row of a reason.
        needed: Tokens that ``max_length`` would have to be for the rows whose prompt fills it.

    Raises:
        DatasetError: ``no_usable_rows`` if none is left, else ``too_many_rejected``; the message counts by reason,
            names the first rows and says what mends them.
    """
    count = sum(len(rows) for rows in rejected.values())
    faulty = sum(len(rows) for reason, rows in rejected.items() if reason not in NO_FAULT)
    if count < rows_total and faulty <= max_rejected_fraction * rows_total:
        return
    by_reason = "; ".join(
        _counted(reason, rows, (said or {}).get(reason, ""))
        for reason, rows in sorted(rejected.items(), key=lambda item: -len(item[1]))
        if len(rows)
    )
    remedy = _remedy([reason for reason, rows in rejected.items() if len(rows)], needed)
    if count >= rows_total:
        raise DatasetError("no_usable_rows", f"none of the {rows_total:,} rows can be used: {by_reason}. {remedy}")
    raise DatasetError(
        "too_many_rejected",
        f"{faulty:,} of {rows_total:,} rows cannot be used, the limit is {max_rejected_fraction:.1%}: {by_reason}. "
        f"{remedy}, or allow a larger share with dataset.max_rejected_fraction",
    )


def _counted(reason: Reason, rows: Sequence[int] | NDArray[np.int64], said: str) -> str:
    shown = ", ".join(str(row) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")  # noqa: PLR2004
    return f"{len(rows):,} {reason} (row {shown}{f': {said}' if said else ''})"


def _remedy(reasons: Sequence[Reason], needed: int) -> str:
    """What mends the rows, by reason."""
    remedies: list[str] = []
    if Reason.RESPONSE_TRUNCATED in reasons:
        remedies.append(
            f"The prompts of the rows that are response_truncated fill model.max_length: {needed:,} tokens would hold "
            "all of these rows whole"
        )
    if {Reason.TEMPLATE_REFUSED, Reason.TEMPLATE_NOT_PREFIX_STABLE} & set(reasons):
        remedies.append("Write the turns as the model's chat template takes them, or use a model with another template")
    if Reason.UNDESIRABLE in reasons:
        remedies.append('Rows whose label is false are learned with dataset.preference "rejected" or "all"')
    if Reason.INVALID_UTF8 in reasons:
        remedies.append(
            "Rows that are invalid_utf8 may be in another encoding: convert the file, as by "
            "iconv -f WINDOWS-1252 -t UTF-8"
        )
    if set(reasons) - {
        Reason.INVALID_UTF8,
        Reason.RESPONSE_TRUNCATED,
        Reason.TEMPLATE_REFUSED,
        Reason.TEMPLATE_NOT_PREFIX_STABLE,
        Reason.UNDESIRABLE,
    }:
        remedies.append("Repair the rows")
    return ". ".join(remedies)
