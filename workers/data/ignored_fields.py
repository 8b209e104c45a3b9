"""Counts of rows by the field that nothing reads of them, bounded whatever the rows name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.data.formats import LONGEST_COLUMN_NAME, storable

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_FIELDS = 100
"""Fields that are named."""
FURTHER_FIELDS = "(further fields)"
"""Stands for all fields beyond those that are named, each counted in each row that has it."""


class IgnoredFields:
    """Of all fields the first by name, so that they are the same in whatever pieces the rows come."""

    def __init__(self) -> None:
        self._total = 0
        self._rows: dict[str, int] = {}

    def add(self, fields: Mapping[str, int]) -> None:
        """Count rows by field, or what `counted` gave of other rows."""
        for name, count in fields.items():
            self._total += count
            if name != FURTHER_FIELDS:
                told = storable(name[:LONGEST_COLUMN_NAME])
                self._rows[told] = self._rows.get(told, 0) + count
        if len(self._rows) > 2 * MOST_FIELDS:  # a name that goes has enough before it, and never stays again
            self._rows = self._first()

    def counted(self) -> dict[str, int]:
        """Rows by field, by name; the sum over all fields beyond those under `FURTHER_FIELDS`."""
        first = self._first()
        further = self._total - sum(first.values())
        return {**first, FURTHER_FIELDS: further} if further else first

    def _first(self) -> dict[str, int]:
        return dict(sorted(self._rows.items())[:MOST_FIELDS])
