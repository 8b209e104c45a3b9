"""Why a row of a dataset cannot be used."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from workers.data.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray


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
    """The template renders the turns before a response differently once it is there, so it cannot be located."""
    NON_FINITE_GRADIENT = "non_finite_gradient"
    """The model's loss or gradient of this row is NaN or infinite."""


def enforce_limit(
    rejected: Mapping[Reason, Sequence[int] | NDArray[np.int64]], rows_total: int, max_rejected_fraction: float = 0.05
) -> None:
    """Fail a dataset of which too many rows cannot be used.

    Args:
        rejected: 0-based row numbers by reason.
        rows_total: Rows of the dataset, the rejected included.
        max_rejected_fraction: In [0, 1]; more than this share of rows is too much.

    Raises:
        DatasetError: ``no_usable_rows`` if none is left, else ``too_many_rejected``; the message counts by reason
            and names the first rows.
    """
    count = sum(len(rows) for rows in rejected.values())
    if count < rows_total and count <= max_rejected_fraction * rows_total:
        return
    by_reason = "; ".join(
        f"{len(rows):,} {reason} (row {', '.join(str(row) for row in rows[:5])}{', ...' if len(rows) > 5 else ''})"  # noqa: PLR2004
        for reason, rows in sorted(rejected.items(), key=lambda item: -len(item[1]))
        if len(rows)
    )
    if count >= rows_total:
        raise DatasetError("no_usable_rows", f"none of the {rows_total:,} rows can be used: {by_reason}")
    raise DatasetError(
        "too_many_rejected",
        f"{count:,} of {rows_total:,} rows cannot be used, the limit is {max_rejected_fraction:.1%}: {by_reason}. "
        "Repair them, or allow a larger share",
    )
