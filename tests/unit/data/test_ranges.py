"""A dataset that is read in ranges gives the corpus, to the byte, that reading it whole gives."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.core.uris.datasets import check_uri, check_uris
from workers.data.conversation import EVERY_REPLY
from workers.data.corpus import ColumnsDiffer, build_corpus, corpus_key, corpus_of_pieces, read_piece, shape_for
from workers.data.errors import DatasetError
from workers.data.fetch import fetch
from workers.data.fetch_ranges import RangesNotThere, fetched_ranges
from workers.data.formats import first_columns
from workers.data.ranges import Cut, ranges_of

from .test_formats import ENCODERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from app.core.settings import Settings
    from app.core.uris.datasets import DatasetUri
    from tests.own_directory import SettingsFactory
    from workers.data.corpus import Corpus, Piece, Tokenising
    from workers.data.fetch import Snapshot

    from .conftest import SnapshotFactory

ROWS = [{"prompt": f"the cat {i}", "response": "sat on the mat " * (i % 5 + 1)} for i in range(120)]
LINES = st.one_of(
    st.builds(
        lambda prompt, response: json.dumps({"prompt": prompt, "response": response}).encode(),
        st.text("ab \u00e9", max_size=8),
        st.text("cd\u2028", max_size=30),
    ),
    st.sampled_from(
        [
            b"",
            b"  ",
            b"{broken",
            b"7",
            b"\xef\xbb\xbf{}",
            b"\xff",
            b'{"prompt": 1, "note": "x"}',
            b'{"late": 1, "late": 2}',
        ]
    ),
)


def whole(snapshot: Snapshot, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> Corpus:
    return build_corpus(snapshot, tokenizer, columns=None, max_length=64, settings=settings)


def in_pieces(
    snapshot: Snapshot,
    tokenizer: PreTrainedTokenizerFast,
    settings: Settings,
    range_bytes: int,
    uri: DatasetUri | None = None,
) -> Corpus:
    """The corpus of pieces, each of which is read as by another worker, in a cache where nothing was read before.

    With the dataset's URI each worker has nothing but its ranges of the dataset.
    """
    elsewhere = settings.model_copy(update={"cache_path": settings.cache_path / "elsewhere"})
    how: Tokenising = {"columns": None, "max_length": 64, "settings": elsewhere}
    names = first_columns(snapshot, settings, range_bytes)
    read = shape_for(names, None, EVERY_REPLY).columns.values()
    cut = Cut.model_validate_json(Cut.of(snapshot, settings, range_bytes, names, read).model_dump_json())

    def pieces() -> Iterator[Piece]:
        for group in cut.groups:
            with (
                nullcontext(snapshot) if uri is None else fetched_ranges(uri, cut, group, elsewhere, lambda: False)
            ) as there:
                yield read_piece(there, tokenizer, group, cut.columns, should_stop=lambda: False, **how)

    return corpus_of_pieces(corpus_key(snapshot, tokenizer, names, **how), cut, pieces(), **how)


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
        "columns": corpus.columns,
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
    root: Path,
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
    uri = check_uri((root / name).as_uri(), settings)
    assert told(in_pieces(snapshot, chatml, settings, range_bytes, uri)) == told(whole(snapshot, chatml, settings))


def test_a_worker_fetches_the_bytes_of_its_ranges_alone(
    root: Path, snapshot_of: SnapshotFactory, settings: Settings
) -> None:
    for name, content in (("a.jsonl", ENCODERS["jsonl"](ROWS)), ("a.parquet", parquet_of_groups(ROWS))):
        snapshot, uri = snapshot_of(name, content), check_uri((root / name).as_uri(), settings)
        range_bytes = len(content) // 8 if name == "a.jsonl" else 1
        cut = Cut.of(snapshot, settings, range_bytes, ["prompt", "response"], {"prompt", "response"})
        for group in cut.groups:
            expected = bytearray(len(content))
            for span in group[0].spans:
                expected[span.start : span.end] = content[span.start : span.end]
            assert len(expected.strip(b"\0")) < len(content) or name == "a.parquet"
            with fetched_ranges(uri, cut, group, settings, lambda: False) as there:
                path = there.parts[0].path
                assert path.read_bytes() == bytes(expected)
            assert not path.exists()


def test_ranges_of_a_file_that_has_changed_are_not_taken(
    root: Path, snapshot_of: SnapshotFactory, settings: Settings
) -> None:
    content = ENCODERS["jsonl"](ROWS)
    snapshot, uri = snapshot_of("a.jsonl", content), check_uri((root / "a.jsonl").as_uri(), settings)
    cut = Cut.of(snapshot, settings, len(content) // 4, ["prompt", "response"], {"prompt", "response"})
    (root / "a.jsonl").write_bytes(content.replace(b"cat 100", b"dog 100"))
    with fetched_ranges(uri, cut, cut.groups[0], settings, lambda: False):
        pass
    with (
        pytest.raises(RangesNotThere, match="are others"),
        fetched_ranges(uri, cut, cut.groups[-1], settings, lambda: False),
    ):
        pass


def test_columns_that_come_late_and_change_how_rows_are_read_are_told(
    snapshot_of: SnapshotFactory, chatml: PreTrainedTokenizerFast, settings: Settings
) -> None:
    """A column that nothing reads changes nothing; a system message does."""
    noted = [*ROWS, {**ROWS[0], "note": "x"}]
    snapshot = snapshot_of("a.jsonl", ENCODERS["jsonl"](noted))
    assert in_pieces(snapshot, chatml, settings, 1000).columns == ("prompt", "response", "note")
    late = [*noted, {**ROWS[0], "system": "Be brief."}]
    with pytest.raises(ColumnsDiffer) as differ:
        in_pieces(snapshot_of("b.jsonl", ENCODERS["jsonl"](late)), chatml, settings, 1000)
    assert differ.value.columns == ["prompt", "response", "note", "system"]


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
