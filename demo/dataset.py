"""The demo's dataset: real instructions of several domains out of the packages that are installed anyway."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING

from demo.atomic import replacing
from demo.examples import example_rows
from demo.functions import function_rows
from demo.rows import Row, shuffled

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_ROW_BYTES = 420


class TooFewRowsError(Exception):
    """More rows are wanted than the installed packages have."""

    def __init__(self, wanted: int, available: int) -> None:
        super().__init__(f"{wanted} rows are wanted, but the installed packages hold {available}: ask for fewer.")


def write_dataset(path: Path, rows: int, beyond: int = 0, max_bytes: int = MAX_ROW_BYTES) -> None:
    """Writes `rows` rows as JSON lines with the columns prompt, response and source.

    No row has more than `max_bytes` of text. With `beyond` they are the rows that a dataset of so many more would have,
    and one of `beyond` rows has not.

    The same packages give the same bytes, so a second job over them finds the sketches of the first.

    Raises:
        TooFewRowsError: If the packages hold fewer rows.
        ExamplesMissingError: If `lm_eval` is not installed.
    """
    there = list(chain(function_rows(), example_rows()))
    before = set(choose(there, beyond, max_bytes)) if beyond else set()
    chosen = [row for row in choose(there, beyond + rows, max_bytes) if row not in before]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in chosen:
            columns = {"prompt": row.prompt, "response": row.response, "source": row.source}
            file.write(json.dumps(columns, ensure_ascii=False) + "\n")


def choose(rows: Iterable[Row], count: int, max_bytes: int = MAX_ROW_BYTES) -> list[Row]:
    """As even a mix of the domains as there is of `count` short, clean rows.

    Raises:
        TooFewRowsError: If there are fewer.
    """
    pools: dict[str, list[Row]] = defaultdict(list)
    for row in shuffled(row for row in rows if row.is_clean and row.size <= max_bytes):
        pools[_domain(row)].append(row)
    available = sum(map(len, pools.values()))
    if count > available:
        raise TooFewRowsError(count, available)
    chosen: list[Row] = []
    for rank in range(max(map(len, pools.values()), default=0)):
        chosen += [pool[rank] for _, pool in sorted(pools.items()) if rank < len(pool)]
    return shuffled(chosen[:count])


def _domain(row: Row) -> str:
    """The languages of the exams count as one domain."""
    return "exam" if row.source.startswith("exam-") else row.source
