"""The usual ways to write rows in a file, told by how the file begins and not by its name."""

from __future__ import annotations

import codecs
import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from workers.data.errors import DatasetError
from workers.data.export import write_rows
from workers.data.formats import Record, iter_records, read_columns

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.settings import Settings

    from .conftest import SnapshotFactory

ROWS = [{"prompt": "2+2?", "response": "four"}, {"prompt": "1+1?", "response": "tw\u00f6\nor so"}]
TALK = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "four"}]
FRAME = pd.DataFrame(ROWS)
WAYS = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "array": json.dumps(ROWS, indent=1),
    "array on a line": json.dumps(ROWS),
    "object with an array": json.dumps({"version": "1", "data": ROWS}),
    "object with an array, over lines": json.dumps({"about": {"by": "me"}, "rows": ROWS}, indent=2),
    "objects over lines": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    **{f"pandas {way}": FRAME.to_json(orient=way) for way in ("split", "records", "index", "columns", "table")},
    "pandas list": json.dumps(FRAME.to_dict(orient="list")),
}


def records(path: str, content: bytes, snapshot_of: SnapshotFactory, settings: Settings) -> list[object]:
    found = iter_records(snapshot_of(path, content), settings)
    return [record.values if isinstance(record, Record) else record.reason for record in found]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_rows_are_found(way: str, name: str, snapshot_of: SnapshotFactory, settings: Settings, tmp_path: Path) -> None:
    if name == "a.jsonl" and not way.startswith(("lines", "array", "objects", "pandas records")):
        return  # a line that is an object is a row of JSON Lines, whatever is in it
    content = WAYS[way].encode()
    found = records(name, content, snapshot_of, settings)
    assert [{key: row[key] for key in ("prompt", "response")} for row in found] == ROWS  # type: ignore[index]
    snapshot = snapshot_of(name, content)
    assert {"prompt", "response"} <= set(read_columns(snapshot, settings))
    write_rows(snapshot, np.array([1]), tmp_path / "picked", settings)
    picked = json.loads((tmp_path / "picked").read_text())
    assert {**ROWS[1], **(picked[0] if name == "a.json" else picked)}["response"] == ROWS[1]["response"]


@pytest.mark.parametrize(("name", "lines"), [("a.jsonl", 1), ("a.jsonl", 3), ("a.json", 3)])
def test_a_line_that_is_a_list_of_turns_is_a_row(
    name: str, lines: int, snapshot_of: SnapshotFactory, settings: Settings
) -> None:
    content = "\n".join([json.dumps(TALK)] * lines).encode()
    assert records(name, content, snapshot_of, settings) == [{"messages": TALK}] * lines
    assert read_columns(snapshot_of(name, content), settings) == ["messages"]


def test_an_array_of_lists_of_turns_is_rows(snapshot_of: SnapshotFactory, settings: Settings) -> None:
    content = json.dumps([TALK, TALK], indent=1).encode()
    assert records("a.json", content, snapshot_of, settings) == [{"messages": TALK}] * 2


def test_lines_that_are_other_lists_are_told_what_they_are(snapshot_of: SnapshotFactory, settings: Settings) -> None:
    with pytest.raises(DatasetError, match="each line is a list, but not of turns"):
        records("a.jsonl", b'["2+2?", "four"]\n["1+1?", "two"]\n', snapshot_of, settings)


def test_columns_are_those_of_the_whole_file(snapshot_of: SnapshotFactory, settings: Settings) -> None:
    lines = [*({"instruction": str(i), "output": "x"} for i in range(150)), {"instruction": "a", "input": "late"}]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    assert read_columns(snapshot_of("a.jsonl", content), settings) == ["instruction", "output", "input"]


CSV = 'prompt,response\n"2+2, please?","four ""4"""\nb,c\n'
READ = [{"prompt": "2+2, please?", "response": 'four "4"'}, {"prompt": "b", "response": "c"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV.encode()),
        ("a.csv", CSV.replace(",", ";").replace("2; ", "2, ").encode()),
        ("a.tsv", CSV.replace(",", "\t").replace("2\t ", "2, ").encode()),
        ("a.csv", CSV.replace("\n", "\r").encode()),
        ("a.csv", CSV.replace("\n", "\r\n").encode("utf-16")),
        ("a.csv", codecs.BOM_UTF16_BE + CSV.encode("utf-16-be")),
        ("a.csv", CSV.encode("utf-16-le")),
        ("a.csv", CSV.encode("utf-8-sig")),
    ],
)
def test_csv_as_spreadsheets_write_it(
    name: str, content: bytes, snapshot_of: SnapshotFactory, settings: Settings, tmp_path: Path
) -> None:
    assert records(name, content, snapshot_of, settings) == READ
    write_rows(snapshot_of(name, content), np.array([0]), tmp_path / "picked.csv", settings)
    picked = pd.read_csv(io.BytesIO((tmp_path / "picked.csv").read_bytes()), sep=None, engine="python")
    assert picked.to_dict(orient="records") == READ[:1]


def test_utf_16_lines(snapshot_of: SnapshotFactory, settings: Settings) -> None:
    assert records("a.jsonl", WAYS["lines"].encode("utf-16"), snapshot_of, settings) == ROWS


def test_quotes_behind_backslashes_are_said(snapshot_of: SnapshotFactory, settings: Settings) -> None:
    with pytest.raises(DatasetError, match=r"escaped by a backslash.*write them doubled"):
        records("a.csv", b'prompt,response\n"say \\"hi, you\\" to me",b\n', snapshot_of, settings)
