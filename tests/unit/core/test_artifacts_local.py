"""The artifact store in a directory: where it is, and that a write that fails leaves nothing.

A full disk is the kernel's refusal of a file beyond RLIMIT_FSIZE, in the middle of a write; a read-only directory is
one that the effective user may not write to (as root: after taking another one for the moment).
"""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from app.core.settings import Settings
from app.core.storage import StorageFailed, open_artifacts
from app.core.storage.local import LocalArtifacts

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


def settings(url: str | None) -> Settings:
    return Settings(_env_file=None, data_dir=Path("/data"), artifacts_url=url)


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        (None, "/data/artifacts"),
        ("", "/data/artifacts"),
        ("/srv/artifacts", "/srv/artifacts"),
        ("var/artifacts", "var/artifacts"),
        ("file:///srv/a%20b", "/srv/a b"),
        ("file://localhost/srv/a", "/srv/a"),
    ],
)
def test_a_directory_may_be_named_in_any_way(url: str | None, directory: str) -> None:
    store = open_artifacts(settings(url))
    assert isinstance(store, LocalArtifacts)
    assert store.root == Path(directory)


def test_a_bucket_may_be_named() -> None:
    store = open_artifacts(settings("s3://bucket/a/b/"))
    assert store.place.startswith("s3://bucket/a/b")
    assert settings("s3://bucket").artifacts_path is None


@pytest.mark.parametrize(
    "url",
    [
        "gs://bucket/a",
        "https://host/a",
        "file://host/a",
        "file:///",
        "s3:///a",
        "s3://key:secret@bucket/a",
        "s3://b/a?b=c",
    ],
)
def test_another_place_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValidationError, match="artifacts_url"):
        settings(url)


def test_an_empty_endpoint_is_aws_and_a_wrong_one_is_refused() -> None:
    assert Settings(_env_file=None, s3_endpoint_url="").s3_endpoint_url is None
    with pytest.raises(ValidationError, match="s3_endpoint_url"):
        Settings(_env_file=None, s3_endpoint_url="s3.example")


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes (Python ignores the signal that would come with it)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_store_says_so_and_keeps_what_was_there(tmp_path: Path) -> None:
    store = LocalArtifacts(tmp_path)
    store.write("sketches/a/shard", b"old")
    with full_at(1000):
        for write in (store.write, store.write_new):
            with pytest.raises(StorageFailed, match=f"{tmp_path} could not write sketches/a/shard .*: free space"):
                write("sketches/a/shard", b"x" * 5000)
    assert [stored.name for stored in store.list("")] == ["sketches/a/shard"]
    assert store.read("sketches/a/shard") == b"old"


def test_a_full_store_of_rows_from_another_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"x" * 5000)
    replace = Path.replace

    def other_disk(path: Path, target: Path) -> Path:
        if path == source:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", other_disk)
    store = LocalArtifacts(tmp_path / "store")
    with full_at(1000), pytest.raises(StorageFailed, match="free space"):
        store.put("jobs/a/rows.jsonl", source)
    assert list(store.list("")) == []
    store.put("jobs/a/rows.jsonl", source)
    assert store.read("jobs/a/rows.jsonl") == source.read_bytes()


def test_rows_are_moved_into_their_place(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"{}")
    store = LocalArtifacts(tmp_path / "store")
    store.put("jobs/a/rows.jsonl", source)
    assert not source.exists()
    stored = store.stat("jobs/a/rows.jsonl")
    assert stored is not None
    assert stored.size == 2
    store.remove_all("jobs/a/")
    store.remove_all("jobs/a/")
    assert store.stat("jobs/a/rows.jsonl") is None


@contextmanager
def without_root() -> Iterator[None]:
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_store_says_so() -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = LocalArtifacts(Path(directory))
        store.write("sketches/a/shard", b"old")
        for path in (store.root, store.root / "sketches", store.root / "sketches" / "a"):
            path.chmod(0o555)
        with without_root():
            assert store.read("sketches/a/shard") == b"old"
            for name in ("sketches/a/shard", "jobs/a/rows.csv"):
                with pytest.raises(
                    StorageFailed, match=f"{directory} could not write {name} .*: let the service write"
                ):
                    store.write(name, b"new")
            with pytest.raises(StorageFailed, match="could not delete"):
                store.remove_all("sketches/a/")
        assert store.read("sketches/a/shard") == b"old"
        (store.root / "sketches" / "a").chmod(0)
        with without_root(), pytest.raises(StorageFailed, match="could not list"):
            list(store.list("sketches/"))
        for path in (store.root, store.root / "sketches", store.root / "sketches" / "a"):
            path.chmod(0o755)
