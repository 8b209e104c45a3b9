"""Which columns of a dataset may name sources, and how many rows each source has."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workers.data.describe import describe
from workers.data.sources import ColumnValues

if TYPE_CHECKING:
    from app.core.settings import Settings
    from tests.unit.data.conftest import SnapshotFactory


def test_columns_of_few_short_values_are_counted() -> None:
    found = ColumnValues(["text", "number", "origin", "level", "nothing", "list"])
    for row in range(202):
        found.add(
            {
                "text": "x" * (row + 1),
                "number": row,
                "origin": ("code", "chat", None)[row % 3],
                "level": row % 2,
                "nothing": None,
                "list": ["a"],
            }
        )
    assert found.found() == {"origin": {"code": 68, "chat": 67}, "level": {"0": 101, "1": 101}}


def test_a_usual_name_comes_first() -> None:
    found = ColumnValues(["a", "domain"])
    found.add({"a": "1", "domain": "code"})
    assert list(found.found()) == ["domain", "a"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_registered_dataset_tells_its_sources(snapshot_of: SnapshotFactory, settings: Settings, kind: str) -> None:
    rows = [{"prompt": f"{row}", "response": "y" * 900, "origin": ("code", "chat")[row % 2]} for row in range(300)]
    if kind == "parquet":
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), file)
        content = file.getvalue()
    else:
        content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    assert describe(snapshot_of(f"a.{kind}", content), settings).sources == {"origin": {"code": 150, "chat": 150}}
