"""A dataset that is read in ranges gives the corpus, to the byte, that reading it whole gives."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.core.uris.datasets import check_uris
from workers.data.corpus import build_corpus, read_piece
from workers.data.errors import DatasetError
from workers.data.fetch import fetch
from workers.data.formats import read_columns
from workers.data.ranges import ranges_of

from .test_formats import ENCODERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from app.core.settings import Settings
    from tests.own_directory import SettingsFactory
    from workers.data.corpus import Corpus, Piece
    from workers.data.fetch import Snapshot

    from .conftest import SnapshotFactory

ROWS = [{"prompt": f"the cat {i}", "response": "sat on the mat " * (i % 5 + 1)} for i in range(120)]
LINES = st.one_of(
    st.builds(
        lambda prompt, response: json.dumps({"prompt": prompt, "response": response}).encode(),
        st.text("ab \u00e9", max_size=8),
        st.text("cd\u2028", max_size=30),
    ),
    st.sampled_from([b"", b"  ", b"{broken", b"7", b"\xef\xbb\xbf{}", b"\xff", b'{"prompt": 1, "note": "x"}']),
)


def whole(snapshot: Snapshot, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> Corpus:
    return build_corpus(snapshot, tokenizer, columns=None, max_length=64, settings=settings)


def in_pieces(snapshot: Snapshot, tokenizer: PreTrainedTokenizerFast, settings: Settings, range_bytes: int) -> Corpus:
    """The corpus of pieces, each of which is read as by another worker, in a cache where nothing was read before."""
    elsewhere = settings.model_copy(update={"cache_path": settings.cache_path / "elsewhere"})
    names = read_columns(snapshot, settings)

    def pieces(_key: str) -> Iterator[Piece]:
        for group in ranges_of(snapshot, settings, range_bytes):
            yield read_piece(
                snapshot,
                tokenizer,
                group,
                names,
                columns=None,
                max_length=64,
                settings=elsewhere,
                should_stop=lambda: False,
            )

    return build_corpus(snapshot, tokenizer, columns=None, max_length=64, settings=elsewhere, pieces=pieces)


def told(corpus: Corpus) -> dict[str, Any]:
    """All that a corpus says of itself but its place."""
    return {
        "digest": corpus.digest,
        "rows": corpus.rows.tolist(),
        "rows_total": corpus.rows_total,
        "rejected": {reason: rows.tolist() for reason, rows in corpus.rejected.items()},
        "said": corpus.said,
        "needed": corpus.needed,
        "ignored": corpus.ignored,
        "starts": corpus.starts,
        "truncated": corpus.truncated,
        "lengths": corpus.lengths.tolist(),
        "shape": corpus.shape,
    }


@given(st.lists(LINES, min_size=2, max_size=30), st.integers(1, 120), st.booleans())
@example([b"7", b"\xef\xbb\xbf{}", b"\xef\xbb\xbf{}"], 1, False)
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_lines_in_any_ranges(
    snapshot_of: SnapshotFactory,
    chatml: PreTrainedTokenizerFast,
    settings: Settings,
    lines: list[bytes],
    range_bytes: int,
    ends: bool,
) -> None:
    good = json.dumps(ROWS[0]).encode()
    content = b"\n".join([good, *lines]) + (b"\n" if ends else b"")
    snapshot = snapshot_of("a.jsonl", content)
    assert told(in_pieces(snapshot, chatml, settings, range_bytes)) == told(whole(snapshot, chatml, settings))


def parquet_of_groups(rows: list[dict[str, str]]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{**row, "unread": "x"} for row in rows]), stream, row_group_size=25)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "ranges"),
    [
        ("a.jsonl", ENCODERS["jsonl"](ROWS), 8),
        ("a.json", ENCODERS["jsonl"](ROWS), 8),  # lines, whatever the file is called
        ("a.parquet", parquet_of_groups(ROWS), 5),
        ("a.csv", ENCODERS["csv"](ROWS), 1),  # a record may go on over line ends
        ("b.json", json.dumps(ROWS).encode(), 1),
        ("utf16.jsonl", ENCODERS["jsonl"](ROWS).decode().encode("utf-16"), 1),
    ],
)
def test_each_kind_of_file(
    snapshot_of: SnapshotFactory,
    chatml: PreTrainedTokenizerFast,
    settings: Settings,
    name: str,
    content: bytes,
    ranges: int,
) -> None:
    snapshot = snapshot_of(name, content)
    range_bytes = len(content) // 8 if not name.endswith("parquet") else 1
    assert len(ranges_of(snapshot, settings, range_bytes)) == ranges
    assert told(in_pieces(snapshot, chatml, settings, range_bytes)) == told(whole(snapshot, chatml, settings))


def test_files_are_ranges_and_small_ones_are_read_together(
    root: Path, make_settings: SettingsFactory, chatml: PreTrainedTokenizerFast
) -> None:
    settings = make_settings()
    for number in range(3):
        (root / f"{number}.jsonl").write_bytes(ENCODERS["jsonl"](ROWS[number * 40 : number * 40 + 40]))
    uris = tuple((root / f"{number}.jsonl").as_uri() for number in range(3))
    snapshot = fetch(check_uris(uris, settings), settings)
    (together,) = ranges_of(snapshot, settings, 1 << 20)
    assert [each.file for each in together] == [0, 1, 2]
    one_and_a_half_files = snapshot.parts[0].bytes * 3 // 2
    groups = ranges_of(snapshot, settings, one_and_a_half_files)
    assert [[each.file for each in group] for group in groups] == [[0, 1], [2]]
    for range_bytes in (1000, one_and_a_half_files):
        pieced = in_pieces(snapshot, chatml, settings, range_bytes)
        assert pieced.starts == (0, 40, 80)
        assert told(pieced) == told(whole(snapshot, chatml, settings))


def test_too_many_rows_in_all_are_refused(
    snapshot_of: SnapshotFactory, make_settings: SettingsFactory, chatml: PreTrainedTokenizerFast
) -> None:
    settings = make_settings(dataset_max_rows=100)
    with pytest.raises(DatasetError, match="more than 100 rows"):
        in_pieces(snapshot_of("a.jsonl", ENCODERS["jsonl"](ROWS)), chatml, settings, 1000)
