"""Copy some ranges of a dataset from wherever it is, so that a machine which reads a part of it fetches that part.

A range's bytes are known by their checksum, so what is fetched is what the worker that cut the dataset has read. They
lie at their places in files as long as the dataset's own, whose other bytes are holes that take no space.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from typing import TYPE_CHECKING

from workers.data.errors import DatasetError
from workers.data.fetch import CHUNK_BYTES, SOURCE_ERRORS, Snapshot, all_files, attempts, cache_errors, fetch, reader_of
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from app.core.settings import Settings
    from app.core.uris.datasets import DatasetUri
    from workers.data.formats import Range, Span
    from workers.data.ranges import Cut


class RangesNotThere(Exception):
    """The source does not give these ranges, or gives other bytes: fetching the whole says what is wrong."""


@contextlib.contextmanager
def fetched_ranges(
    uri: DatasetUri, cut: Cut, ranges: Sequence[Range], settings: Settings, should_stop: Callable[[], bool]
) -> Iterator[Snapshot]:
    """Some ranges of a dataset on this machine, until the block ends.

    Args:
        uri: Of the dataset.
        cut: How it is cut.
        ranges: Some of its ranges.
        settings: As for `workers.data.fetch.fetch`.
        should_stop: Asked about once a MiB.

    Yields:
        The dataset, with nothing but these ranges in it.

    Raises:
        RangesNotThere: The source does not give them.
        DatasetError: ``cache_not_writable``.
        Stopped: ``should_stop`` said so.
    """
    directory = settings.cache_path / "datasets" / f".{os.getpid()}-{secrets.token_hex(8)}"
    with cache_errors():
        directory.mkdir(parents=True)
    try:
        try:
            files = all_files(uri, settings)
            if len(files) != len(cut.files):
                raise RangesNotThere(f"the dataset has {len(files)} files, and had {len(cut.files)}")
            for number in sorted({one.file for one in ranges}):
                spans = [one.spans for one in ranges if one.file == number]
                _fetch_file(files[number], cut, number, spans, directory, settings, should_stop)
        except (DatasetError, *SOURCE_ERRORS) as error:
            raise RangesNotThere(str(error)) from error
        parts = tuple(
            Snapshot(directory / f"{number:05d}", one.format, one.compression, one.bytes, one.fingerprint)
            for number, one in enumerate(cut.files)
        )
        yield Snapshot(directory, parts[0].format, None, sum(part.bytes for part in parts), "", parts)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _fetch_file(
    uri: DatasetUri,
    cut: Cut,
    number: int,
    spans: list[tuple[Span, ...]],
    directory: Path,
    settings: Settings,
    should_stop: Callable[[], bool],
) -> None:
    """Some spans of a file, or all of it where a range has none."""
    path = directory / f"{number:05d}"
    if not all(spans):
        whole = fetch(uri, settings, should_stop=should_stop)
        if whole.fingerprint != cut.files[number].fingerprint:
            raise RangesNotThere(f"file {number} is another one")
        with cache_errors():
            os.link(whole.path, path)
        return
    with path.open("wb") as file, reader_of(uri, settings) as read:
        file.truncate(cut.files[number].bytes)
        for span in dict.fromkeys(span for some in spans for span in some):
            digest = hashlib.sha256()
            file.seek(span.start)
            for start in range(span.start, span.end, CHUNK_BYTES):
                if should_stop():
                    raise Stopped
                piece = attempts(settings)(read, start, min(CHUNK_BYTES, span.end - start))
                digest.update(piece)
                file.write(piece)
            if digest.hexdigest() != span.sha256:
                raise RangesNotThere(f"bytes {span.start} to {span.end} of file {number} are others")
