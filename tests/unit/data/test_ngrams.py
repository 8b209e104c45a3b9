"""Rows that share a run of words with another dataset."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workers.data.ngrams import read_ngrams, rows_within
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from app.core.settings import Settings

    from .conftest import SnapshotFactory


def lines(*rows: dict[str, Any]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def never() -> bool:
    return False


EVALUATION = lines(
    {"question": "Which river, of all, is the longest one?", "answer": "The Nile", "id": "x1"},
    {"question": "Why?", "answer": "No"},
)


def test_rows_with_a_run_of_words_are_found_whatever_their_case_and_punctuation(
    snapshot_of: SnapshotFactory, settings: Settings
) -> None:
    pool = snapshot_of(
        "pool.jsonl",
        lines(
            {"prompt": "He asked: WHICH river of all\nis the longest?", "response": "a"},
            {"prompt": "which river of all was it", "response": "b"},
            {"prompt": "Hello", "response": "So: river of ALL is-the longest, he said"},
            {"prompt": "which river of", "response": "all is the longest one"},
            {"prompt": "", "response": "none", "note": "river of all is the longest"},
        ),
    )
    ngrams = read_ngrams(snapshot_of("evaluation.jsonl", EVALUATION), None, 6, settings, never)
    assert (ngrams.rows, ngrams.short, len(ngrams.runs)) == (2, 1, 3)
    assert rows_within(pool, ["prompt", "response"], ngrams, settings, never).tolist() == [0, 2]


def test_only_named_columns_of_the_evaluation_count(snapshot_of: SnapshotFactory, settings: Settings) -> None:
    ngrams = read_ngrams(snapshot_of("evaluation.jsonl", EVALUATION), ["answer"], 2, settings, never)
    assert ngrams.runs == {"the nile"}


def test_turns_are_looked_through_one_by_one(snapshot_of: SnapshotFactory, settings: Settings) -> None:
    turns = [{"role": "user", "content": "is the longest"}, {"role": "assistant", "content": "river of all is the"}]
    pool = snapshot_of("pool.jsonl", lines({"messages": turns}, {"messages": turns[:1]}))
    ngrams = read_ngrams(snapshot_of("evaluation.jsonl", EVALUATION), None, 5, settings, never)
    assert rows_within(pool, ["messages"], ngrams, settings, never).tolist() == [0]


def test_reading_stops_when_it_is_told_to(snapshot_of: SnapshotFactory, settings: Settings) -> None:
    with pytest.raises(Stopped):
        read_ngrams(snapshot_of("evaluation.jsonl", EVALUATION), None, 6, settings, lambda: True)


def test_text_in_bytes_and_in_cells_of_json_is_looked_through(snapshot_of: SnapshotFactory, settings: Settings) -> None:
    turns = json.dumps([{"role": "user", "content": "Which river\nof all is the longest?"}])
    pool = snapshot_of("pool.jsonl", lines({"messages": turns}, {"messages": "[]"}))
    table = pa.table({"prompt": pa.array([b"which river of all is the", b"\xff which river"], pa.binary())})
    pq.write_table(table, settings.cache_path.parent / "rows.parquet")
    binary = snapshot_of("pool.parquet", (settings.cache_path.parent / "rows.parquet").read_bytes())
    ngrams = read_ngrams(snapshot_of("evaluation.jsonl", EVALUATION), None, 6, settings, never)
    assert rows_within(pool, ["messages"], ngrams, settings, never).tolist() == [0]
    assert rows_within(binary, ["prompt"], ngrams, settings, never).tolist() == [0]
