"""A dataset as tokenised samples in flat files, made once for a dataset, tokenizer and length, then mapped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import zipfile
import zlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from workers.data.conversation import to_messages
from workers.data.describe import check_not_empty, describe
from workers.data.formats import BadRecord, iter_records, read_columns
from workers.data.rejection import Reason
from workers.data.samples import Sample
from workers.data.shapes import Shape, ShapeName, recognise
from workers.data.stopping import Stopped
from workers.data.template_server import template_limits
from workers.data.tokenisation import ConversationEncoder, Encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from app.core.settings import Settings
    from workers.data.conversation import Message
    from workers.data.fetch import Snapshot

LAYOUT_VERSION = 1  # part of a corpus's key: raise it when the same input gives other samples or files
BATCH_ROWS = 256
BATCH_CHARACTERS = 1 << 20
_DTYPES: dict[str, np.dtype[Any]] = {
    "ids": np.dtype("<i4"),
    "mask": np.dtype("u1"),
    "offsets": np.dtype("<i8"),
    "rows": np.dtype("<i8"),
}
_HASH_CHUNK_BYTES = 1 << 22


class CorpusDamaged(Exception):
    """The files of a corpus are not what was written."""


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """The usable samples of a dataset, in file order, memory-mapped.

    Attributes:
        path: The directory that holds it.
        shape: The columns that it was made from, and how rows of them are read.
        rows_total: Rows of the dataset, usable or not.
        rows: Row number of each sample, shape (n,), int64, ascending.
        lengths: Tokens of each sample, shape (n,), int64.
        rejected: Row numbers (int64, ascending) of the rows that cannot be used, by reason.
        truncated: Samples that lost response tokens to ``max_length`` but kept some.
        tokens: Tokens in all.
        digest: ``sha256:<hex>`` over ids, masks, boundaries and row numbers: the content address of the samples.
    """

    path: Path
    shape: Shape
    rows_total: int
    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]
    rejected: Mapping[Reason, NDArray[np.int64]]
    truncated: int
    tokens: int
    digest: str
    _ids: NDArray[np.int32]
    _mask: NDArray[np.uint8]
    _offsets: NDArray[np.int64]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map a corpus, after reading it through once to see that it is intact.

        Raises:
            CorpusDamaged: A file is missing, cut short or altered.
        """
        try:
            about = json.loads((path / "about.json").read_text())
            with np.load(path / "rejected.npz", allow_pickle=False) as archive:
                rejected = {Reason(name): archive[name] for name in archive.files}
            if _digest({name: _file_digest(path / f"{name}.bin") for name in _DTYPES}) != about["digest"]:
                raise CorpusDamaged(f"{path}: the samples are not those that were written")
            ids, mask, offsets, rows = (_mapped(path, name) for name in _DTYPES)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise CorpusDamaged(f"{path}: {error}") from error
        return cls(
            path=path,
            shape=Shape(ShapeName(about["shape"]), about["columns"]),
            rows_total=about["rows_total"],
            rows=rows,
            lengths=np.diff(offsets),
            rejected=rejected,
            truncated=about["truncated"],
            tokens=len(ids),
            digest=about["digest"],
            _ids=ids,
            _mask=mask,
            _offsets=offsets,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Sample:
        """Sample ``i`` of n in file order (negative counts from the end), copied out of the file."""
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"sample {i} of {n}")
        i %= n
        start, end = int(self._offsets[i]), int(self._offsets[i + 1])
        return Sample(
            row=int(self.rows[i]),
            input_ids=np.array(self._ids[start:end], dtype=np.int32),
            loss_mask=np.array(self._mask[start:end], dtype=np.bool_),
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))


def build_corpus(
    snapshot: Snapshot,
    tokenizer: PreTrainedTokenizerBase,
    *,
    columns: Mapping[str, str] | None,
    max_length: int,
    settings: Settings,
    on_rows: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Corpus:
    """Tokenise a dataset, or find it done before under ``<cache_path>/corpora/<key>``.

    Args:
        snapshot: From `workers.data.fetch.fetch`.
        tokenizer: The model's; a fast one.
        columns: Role to column name, see `workers.data.shapes.recognise`; None recognises by itself.
        max_length: Tokens of a sample at most; the right is cut.
        settings: The limits of reading, and the cache.
        on_rows: Called with the rows read so far, once a batch (at most 256 rows).
        should_stop: Asked as often; True gives up and leaves nothing behind.

    Returns:
        The corpus; it may be without samples if every row is rejected: `workers.data.rejection.enforce_limit` says
        whether too many are.

    Raises:
        DatasetError: ``empty``, and those of `iter_records`, `recognise` and `ConversationEncoder`.
        Stopped: ``should_stop`` said so.
    """
    encoder = ConversationEncoder(tokenizer, max_length, template_limits(settings))
    names = read_columns(snapshot, settings)
    if not names:
        _fail_without_columns(snapshot, settings)
    shape = recognise(names, columns)
    final = settings.cache_path / "corpora" / _key(snapshot, shape, encoder, settings)
    with contextlib.suppress(CorpusDamaged):
        return Corpus.open(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{os.getpid()}-{secrets.token_hex(8)}")
    temporary.mkdir()
    try:
        with _Writer(temporary) as writer:
            for batch in _batches(snapshot, shape, settings):
                if should_stop is not None and should_stop():
                    raise Stopped
                batch.encode(encoder, writer)
                if on_rows is not None:
                    on_rows(writer.rows_total)
            check_not_empty(writer.rows_total)
            writer.finish(shape)
        return _publish(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fail_without_columns(snapshot: Snapshot, settings: Settings) -> None:
    """No row could be read: say whether there is none, or why not."""
    describe(snapshot, settings)


def _key(snapshot: Snapshot, shape: Shape, encoder: ConversationEncoder, settings: Settings) -> str:
    made_from = [
        LAYOUT_VERSION,
        snapshot.fingerprint,
        snapshot.format,
        snapshot.compression,
        shape.name,
        sorted(shape.columns.items()),
        encoder.fingerprint(),
        settings.row_max_bytes,
    ]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


class _Batch:
    """Rows on their way to the tokenizer: conversations, or the reasons why not."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.conversations: list[list[Message]] = []
        self.rejected: list[tuple[int, Reason]] = []
        self.characters = 0

    @property
    def full(self) -> bool:
        """Whether it is time to tokenise."""
        return len(self.rows) + len(self.rejected) >= BATCH_ROWS or self.characters >= BATCH_CHARACTERS

    def add(self, row: int, conversation: list[Message] | Reason, row_max_bytes: int) -> None:
        """Take one row."""
        if isinstance(conversation, Reason):
            self.rejected.append((row, conversation))
            return
        characters = sum(len(message["content"]) for message in conversation)
        if characters > row_max_bytes:  # Parquet rows are not measured when they are read
            self.rejected.append((row, Reason.ROW_TOO_LONG))
            return
        self.rows.append(row)
        self.conversations.append(conversation)
        self.characters += characters

    def encode(self, encoder: ConversationEncoder, writer: _Writer) -> None:
        """Tokenise and write."""
        for row, reason in self.rejected:
            writer.reject(row, reason)
        encoded = encoder.encode(self.conversations)
        kept: list[tuple[int, Encoded]] = []
        for row, one in zip(self.rows, encoded, strict=True):
            if isinstance(one, Reason):
                writer.reject(row, one)
            else:
                kept.append((row, one))
        writer.write(kept)


def _batches(snapshot: Snapshot, shape: Shape, settings: Settings) -> Iterator[_Batch]:
    batch = _Batch()
    for record in iter_records(snapshot, settings, frozenset(shape.columns.values())):
        conversation = record.reason if isinstance(record, BadRecord) else to_messages(record.values, shape)
        batch.add(record.row, conversation, settings.row_max_bytes)
        if batch.full:
            yield batch
            batch = _Batch()
    yield batch


class _Writer:
    """The four growing files of a corpus and what is told about them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rejected: dict[Reason, array[int]] = {}
        self._hashes = {name: hashlib.sha256() for name in _DTYPES}
        self._end = 0
        self._truncated = 0
        self._files = contextlib.ExitStack()
        self._open: dict[str, BinaryIO] = {}
        self.rows_total = 0

    def __enter__(self) -> Self:
        for name in _DTYPES:
            self._open[name] = self._files.enter_context((self._directory / f"{name}.bin").open("wb"))
        self._append("offsets", np.zeros(1, dtype=np.int64))
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def reject(self, row: int, reason: Reason) -> None:
        """Note a row that cannot be used."""
        self._rejected.setdefault(reason, array("q")).append(row)
        self.rows_total += 1

    def write(self, samples: list[tuple[int, Encoded]]) -> None:
        """Append samples in order."""
        if not samples:
            return
        ends = self._end + np.cumsum([len(one.input_ids) for _, one in samples])
        self._append("ids", np.concatenate([one.input_ids for _, one in samples]))
        self._append("mask", np.concatenate([one.loss_mask for _, one in samples]))
        self._append("offsets", ends)
        self._append("rows", np.array([row for row, _ in samples]))
        self._end = int(ends[-1])
        self._truncated += sum(one.truncated for _, one in samples)
        self.rows_total += len(samples)

    def finish(self, shape: Shape) -> None:
        """Write what is told about the samples."""
        for file in self._open.values():
            file.flush()
            os.fsync(file.fileno())
        rejected = {str(reason): np.sort(np.array(rows, dtype=np.int64)) for reason, rows in self._rejected.items()}
        np.savez(self._directory / "rejected.npz", allow_pickle=False, **rejected)
        about = {
            "digest": _digest({name: digest.hexdigest() for name, digest in self._hashes.items()}),
            "rows_total": self.rows_total,
            "truncated": self._truncated,
            "shape": shape.name,
            "columns": dict(shape.columns),
        }
        (self._directory / "about.json").write_text(json.dumps(about, indent=2))

    def _append(self, name: str, values: NDArray[Any]) -> None:
        data = values.astype(_DTYPES[name], copy=False).tobytes()
        self._open[name].write(data)
        self._hashes[name].update(data)


def _publish(temporary: Path, final: Path) -> Corpus:
    """Give a finished corpus its name; where another worker was quicker, take that one if it is intact."""
    try:
        temporary.rename(final)
    except OSError:
        with contextlib.suppress(CorpusDamaged):
            return Corpus.open(final)
        shutil.rmtree(final)
        temporary.rename(final)
    return Corpus.open(final)


def _mapped(directory: Path, name: str) -> NDArray[Any]:
    path = directory / f"{name}.bin"
    if path.stat().st_size == 0:  # which cannot be mapped
        return np.empty(0, dtype=_DTYPES[name])
    return np.memmap(path, dtype=_DTYPES[name], mode="r")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(parts: Mapping[str, str]) -> str:
    joined = json.dumps([parts[name] for name in sorted(_DTYPES)])
    return f"sha256:{hashlib.sha256(joined.encode()).hexdigest()}"
