"""The figures of every row as a table, and the rows that look most wrong as text."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.core.contracts.row_scores import NEAREST
from app.core.contracts.selection_request import DIAGNOSTICS
from workers.data.excerpts import write_excerpts
from workers.data.export import write_rows
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from app.core.db.tables import Json
    from app.core.settings import Settings
    from workers.stages.candidates import Candidates
    from workers.stages.reading import Reading

MOST_SUSPECTS = 1000
"""Rows that are kept as text: what a person can look through. The table of scores has all."""
ROWS_AT_ONCE = 1 << 16


@contextmanager
def written_scores(
    settings: Settings,
    reading: Reading,
    candidates: Candidates,
    picked: NDArray[np.int64],
    further: Mapping[str, NDArray[np.float64]],
    source_column: str | None,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[Path, Path]]:
    """The table and the text on this machine, for as long as the block lasts.

    Args:
        settings: Where, and the limits of reading.
        reading: The dataset.
        candidates: The rows with their figures.
        picked: Row numbers of the picks.
        further: Further figures of the usable rows by the names of their columns, each (m,); NaN where it is not known.
        source_column: The column that names where a row is from; None where there is none.
        should_stop: Asked once a batch.

    Raises:
        Stopped: `should_stop` said so.
    """
    directory = settings.cache_path / "rows"
    directory.mkdir(parents=True, exist_ok=True)
    base = directory / f".{secrets.token_hex(8)}.scores"
    table, rows, text = (base.with_suffix(suffix) for suffix in (".parquet", f".{reading.snapshot.format}", ".jsonl"))
    is_picked = np.isin(candidates.usable, picked)

    def watch(_written: int) -> None:
        if should_stop():
            raise Stopped

    try:
        with pq.ParquetWriter(table, _schema(further), compression="zstd") as writer:
            for part in _batches(candidates, is_picked, further):
                watch(0)
                writer.write_table(part)
        worst = candidates.worst(MOST_SUSPECTS)
        write_rows(reading.snapshot, candidates.usable[np.sort(worst)], rows, settings, watch)
        snapshot = replace(reading.snapshot, path=rows, parts=(), compression=None, bytes=rows.stat().st_size)
        facts = _facts(candidates, worst, is_picked)
        write_excerpts(snapshot, reading.corpus.shape, reading.corpus.wanted, facts, text, settings, source_column)
        yield table, text
    finally:
        for path in (table, rows, text):
            path.unlink(missing_ok=True)


def suspects_counted(candidates: Candidates, picks: NDArray[np.int64]) -> Json:
    """How many rows look wrong, and how many of the picks, which are places among the candidates."""
    return {
        "rows": int(candidates.suspect.sum()),
        "picked": int(candidates.suspect[candidates.places[picks]].sum()),
        "listed": min(MOST_SUSPECTS, len(candidates.usable)),
    }


SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        *((name, pa.float64()) for name in DIAGNOSTICS),
        ("suspicion", pa.float64()),
        ("suspect", pa.bool_()),
        ("picked", pa.bool_()),
        ("filtered", pa.string()),
    ]
)


def _schema(further: Mapping[str, NDArray[np.float64]]) -> pa.Schema:
    return pa.schema([*SCHEMA, *((name, pa.int64() if name == NEAREST else pa.float64()) for name in further)])


def _batches(
    candidates: Candidates, is_picked: NDArray[np.bool_], further: Mapping[str, NDArray[np.float64]]
) -> Iterator[pa.Table]:
    """The table's rows in file order; a figure that is not known is null, and so is `filtered` of a candidate."""
    filtered, schema = _filtered(candidates), _schema(further)
    for start in range(0, len(candidates.usable), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        figures = [pa.array(candidates.figures.of(name)[part], from_pandas=True) for name in DIAGNOSTICS]
        columns = (candidates.suspicion, candidates.suspect, is_picked)
        more = [pa.array(values[part], schema.field(name).type, from_pandas=True) for name, values in further.items()]
        yield pa.table(
            [candidates.usable[part], *figures, *(column[part] for column in columns), filtered[part], *more],
            schema=schema,
        )


def _facts(candidates: Candidates, worst: NDArray[np.int64], is_picked: NDArray[np.bool_]) -> Iterator[Json]:
    """What is known of each suspect besides its text, in file order."""
    filtered = _filtered(candidates)
    ranks = dict(zip(worst.tolist(), range(1, len(worst) + 1), strict=True))
    for place in sorted(ranks):
        figures = {name: float(candidates.figures.of(name)[place]) for name in DIAGNOSTICS}
        yield {
            "rank": ranks[place],
            "index": int(candidates.usable[place]),
            "suspicion": float(candidates.suspicion[place]),
            **{name: figure if np.isfinite(figure) else None for name, figure in figures.items()},
            "suspect": bool(candidates.suspect[place]),
            "picked": bool(is_picked[place]),
            "filtered": filtered[place],
        }


def _filtered(candidates: Candidates) -> NDArray[np.object_]:
    """By which bound each usable row was dropped; None for candidates."""
    reasons = np.full(len(candidates.usable), None, dtype=object)
    for reason, rows in candidates.filtered.items():
        reasons[np.searchsorted(candidates.usable, rows)] = reason
    return reasons
