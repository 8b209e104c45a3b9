"""Columns of a job's table of scores that its readers know by name."""

from __future__ import annotations

from typing import Final

GAIN_AT_END: Final = "gain_at_end"
"""What a row that was not picked would add to the whole selection, in nats."""
NEAREST: Final = "nearest"
"""Row number of the pick with the largest cosine with it."""
NEAREST_COSINE: Final = "nearest_cosine"
"""That cosine."""
