"""A dataset of many files is one dataset, whose rows are numbered through all of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.uris.datasets import UriRefused, check_uri, check_uris
from workers.data.errors import DatasetError
from workers.data.export import write_rows
from workers.data.fetch import fetch, recall
from workers.data.formats import Record, iter_records, read_columns

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.settings import Settings

ROWS = [{"prompt": f"{i}+0?", "response": str(i)} for i in range(6)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path.as_uri()


def values(snapshot: Any, settings: Settings, starts: list[int] | None = None) -> list[dict[str, Any]]:
    records = iter_records(snapshot, settings, starts=starts)
    return [record.values for record in records if isinstance(record, Record)]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("way", ["list", "directory", "pattern", "deep pattern"])
def test_rows_run_through_all_files(suffix: str, way: str, root: Path, settings: Settings, tmp_path: Path) -> None:
    directory = root / "data"
    written = [write(directory / f"part-{i}{suffix}", ROWS[2 * i : 2 * i + 2]) for i in range(3)]
    (directory / "README.md").write_text("not rows")
    uris = {
        "list": written,
        "directory": [f"{directory.as_uri()}/"],
        "pattern": [f"{directory.as_uri()}/part-*{suffix}"],
        "deep pattern": [f"{root.as_uri()}/**/*{suffix}"],
    }[way]
    snapshot = fetch(check_uris(uris, settings), settings)
    starts: list[int] = []
    assert values(snapshot, settings, starts) == ROWS
    assert (starts, [part.name for part in snapshot.parts]) == ([0, 2, 4], written)
    assert read_columns(snapshot, settings) == ["prompt", "response"]
    again = recall(check_uris(uris, settings), snapshot.fingerprint, settings)
    assert again == snapshot
    write_rows(snapshot, np.array([5, 1, 2]), tmp_path / f"picked{suffix}", settings)
    picked = fetch(check_uri(write_copy(tmp_path / f"picked{suffix}", root), settings), settings)
    assert values(picked, settings) == [ROWS[1], ROWS[2], ROWS[5]]


def write_copy(path: Path, root: Path) -> str:
    copy = root / f"copy{path.suffix}"
    copy.write_bytes(path.read_bytes())
    return copy.as_uri()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_of_other_columns_go_together(suffix: str, root: Path, settings: Settings, tmp_path: Path) -> None:
    more = [{"response": "x", "prompt": "y", "source": "b"}]
    uris = [write(root / f"a{suffix}", ROWS[:2]), write(root / f"b{suffix}", more)]
    snapshot = fetch(check_uris(uris, settings), settings)
    assert read_columns(snapshot, settings) == ["prompt", "response", "source"]
    write_rows(snapshot, np.array([0, 2]), tmp_path / f"picked{suffix}", settings)
    picked = values(fetch(check_uri(write_copy(tmp_path / f"picked{suffix}", root), settings), settings), settings)
    assert [row["prompt"] for row in picked] == ["0+0?", "y"]
    assert picked[1]["source"] == "b"


def test_what_does_not_go_together_is_said(root: Path, settings: Settings) -> None:
    uris = [write(root / "a.jsonl", ROWS), write(root / "b.csv", ROWS)]
    with pytest.raises(DatasetError, match="are csv, jsonl: give files of one format"):
        fetch(check_uris(uris, settings), settings)
    (root / "empty").mkdir()
    with pytest.raises(DatasetError, match="names no file of rows"):
        fetch(check_uri(f"{(root / 'empty').as_uri()}/", settings), settings)


@pytest.mark.parametrize("uri", ["{out}/", "{out}/*.jsonl", "{root}/*/../../out/*.jsonl"])
def test_no_pattern_leads_outside(uri: str, root: Path, settings: Settings, tmp_path: Path) -> None:
    write(tmp_path / "out" / "secret.jsonl", ROWS)
    with pytest.raises(UriRefused):
        check_uri(uri.format(out=(tmp_path / "out").as_uri(), root=root.as_uri()), settings)


def test_a_link_in_a_directory_that_leads_outside_is_refused(root: Path, settings: Settings, tmp_path: Path) -> None:
    write(tmp_path / "out" / "secret.jsonl", ROWS)
    write(root / "data" / "a.jsonl", ROWS)
    (root / "data" / "b.jsonl").symlink_to(tmp_path / "out" / "secret.jsonl")
    with pytest.raises(DatasetError, match="outside the directories"):
        fetch(check_uri(f"{(root / 'data').as_uri()}/", settings), settings)


def test_a_link_of_the_hub_s_cache_is_judged_by_the_name_that_was_written(root: Path, settings: Settings) -> None:
    write(root / "blobs" / "x.jsonl", ROWS).removesuffix(".jsonl")
    (root / "blobs" / "x.jsonl").rename(root / "blobs" / ("0" * 64))
    (root / "snapshots").mkdir()
    (root / "snapshots" / "train.jsonl").symlink_to(root / "blobs" / ("0" * 64))
    for uri in (f"{(root / 'snapshots' / 'train.jsonl').as_uri()}", f"{(root / 'snapshots').as_uri()}/"):
        assert values(fetch(check_uri(uri, settings), settings), settings) == ROWS


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("hf://datasets/org/name@main", "all 40 hex digits"),
        (f"hf://datasets/org/name@{COMMIT}/../x", "all 40 hex digits"),
        (f"hf://datasets/other/name@{COMMIT}", "SPICE_HUB_DATASETS"),
    ],
)
def test_a_dataset_on_the_hub_is_pinned_and_allowed(uri: str, says: str, make_settings: Any) -> None:
    settings = make_settings(hub_datasets=("org/*",))
    with pytest.raises(UriRefused, match=says):
        check_uri(uri, settings)
    assert check_uri(f"hf://datasets/org/name@{COMMIT}/main", settings).repository == ("org/name", COMMIT, "main")
