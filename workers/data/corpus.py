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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, NotRequired, Self, TypedDict, Unpack

import numpy as np

from spice_rows.shape import Shape, ShapeName
from workers.data.conversation import EVERY_REPLY, Conversation, Wanted, to_conversation
from workers.data.describe import check_not_empty, describe
from workers.data.errors import DatasetError
from workers.data.formats import (
    BadRecord,
    RowColumns,
    check_rows,
    iter_ranges,
    iter_records,
    read_columns,
    storable_columns,
    unread_columns,
)
from workers.data.ignored_fields import IgnoredFields
from workers.data.rejection import Reason, Refusal
from workers.data.samples import Sample
from workers.data.shapes import recognise
from workers.data.stopping import Stopped
from workers.data.template_server import template_limits
from workers.data.tokenisation import ConversationEncoder, Encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from app.core.settings import Settings
    from workers.data.chat_template import Rendered
    from workers.data.fetch import Snapshot
    from workers.data.formats import Range, Record
    from workers.data.ranges import Cut

LAYOUT_VERSION = 6  # part of a corpus's key: raise it when the same input gives other samples or files
BATCH_ROWS = 256
BATCH_CHARACTERS = 1 << 20
_DTYPES: dict[str, np.dtype[Any]] = {
    "ids": np.dtype("<i4"),
    "mask": np.dtype("u1"),
    "offsets": np.dtype("<i8"),
    "rows": np.dtype("<i8"),
    "digests": np.dtype("<u8"),
}
DIGEST_BYTES = 16
_REJECTED = "rejected."
_COUNTED_AT_ONCE = 1 << 14


class Tokenising(TypedDict):
    """How rows become tokens; what each says, `build_corpus` tells."""

    columns: Mapping[str, str] | None
    max_length: int
    settings: Settings
    wanted: NotRequired[Wanted]
    template: NotRequired[str | None]


class CorpusDamaged(Exception):
    """The files of a corpus are not what was written."""


class ColumnsDiffer(Exception):
    """The rows of a dataset are to be read otherwise than its first rows tell.

    Attributes:
        columns: Of all rows.
    """

    def __init__(self, columns: list[str]) -> None:
        """Name them."""
        self.columns = columns
        super().__init__(f"the dataset has the columns {columns}")


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """The usable samples of a dataset, in file order, memory-mapped.

    Attributes:
        path: The directory that holds it.
        shape: The columns that it was made from, and how rows of them are read.
        wanted: What of the rows is learned.
        rows_total: Rows of the dataset, usable or not.
        rows: Row number of each sample, shape (n,), int64, ascending.
        lengths: Tokens of each sample, shape (n,), int64.
        rejected: Row numbers (int64, ascending) of the rows that cannot be used, by reason.
        said: What the chat template, or we, said of the first row rejected for a reason.
        needed: Tokens that ``max_length`` would have to be for all rows whose prompt fills it.
        ignored: Rows by name of a field that they have and nothing reads.
        starts: Number of the first row of each file of the dataset.
        columns: Of the dataset, as `workers.data.formats.read_columns` finds them.
        digests: Digest of what the model reads of each sample, shape (n, 2), uint64: equal for equal tokens and masks.
        truncated: Samples that lost response tokens to ``max_length`` but kept some.
        tokens: Tokens in all.
        digest: ``sha256:<hex>`` over ids, masks, boundaries, row numbers: the content address of the samples.
    """

    path: Path
    shape: Shape
    wanted: Wanted
    rows_total: int
    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]
    rejected: Mapping[Reason, NDArray[np.int64]]
    said: Mapping[Reason, str]
    needed: int
    ignored: Mapping[str, int]
    starts: tuple[int, ...]
    columns: tuple[str, ...]
    digests: NDArray[np.uint64]
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
            ids, mask, offsets, rows, digests = (_mapped(path, name) for name in _DTYPES)
            wanted = Wanted(*about["wanted"])
            each = 2 if wanted.preference == "dpo" else 1
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise CorpusDamaged(f"{path}: {error}") from error
        return cls(
            path=path,
            shape=Shape(ShapeName(about["shape"]), about["columns"]),
            wanted=wanted,
            rows_total=about["rows_total"],
            rows=rows,
            lengths=np.diff(offsets[::each]),
            rejected=rejected,
            said={Reason(name): said for name, said in about["said"].items()},
            needed=about["needed"],
            ignored=about["ignored"],
            starts=tuple(about["starts"]),
            columns=tuple(about["names"]),
            digests=digests.reshape(-1, 2),
            truncated=about["truncated"],
            tokens=len(ids),
            digest=about["digest"],
            _ids=ids,
            _mask=mask,
            _offsets=offsets,
        )

    @property
    def paired(self) -> bool:
        """Whether each sample has one that is not preferred beside it."""
        return self.wanted.preference == "dpo"

    def __len__(self) -> int:
        return len(self.rows)

    def longest(self) -> tuple[int, int]:
        """Row and tokens of the longest text that the model reads; a pair is two."""
        tokens = np.diff(self._offsets)
        place = int(tokens.argmax())
        return int(self.rows[place // 2 if self.paired else place]), int(tokens[place])

    def response_tokens(self) -> NDArray[np.int64]:
        """Tokens of each sample that carry loss, of a pair those of the preferred response; shape (n,)."""
        each = 2 if self.paired else 1
        counts = np.empty(len(self), dtype=np.int64)
        for start in range(0, len(self), _COUNTED_AT_ONCE):
            samples = np.arange(start, min(start + _COUNTED_AT_ONCE, len(self)))
            first, end = self._offsets[samples * each] + 1, self._offsets[samples * each + 1]
            low = int(first[0]) - 1
            before = np.concatenate([[0], np.cumsum(self._mask[low : int(end[-1])], dtype=np.int64)])
            counts[samples] = before[end - low] - before[first - low]
        return counts

    def __getitem__(self, i: int) -> Sample:
        """Sample ``i`` of n in file order (negative counts from the end), copied out of the file."""
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"sample {i} of {n}")
        i %= n
        if not self.paired:
            return self._sample(i, i)
        return replace(self._sample(i, 2 * i), rejected=self._sample(i, 2 * i + 1))

    def _sample(self, i: int, place: int) -> Sample:
        start, end = int(self._offsets[place]), int(self._offsets[place + 1])
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
    on_rows: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    **tokenising: Unpack[Tokenising],
) -> Corpus:
    """Tokenise a dataset, or find it done before under ``<cache_path>/corpora/<key>``.

    Args:
        snapshot: From `workers.data.fetch.fetch`.
        tokenizer: The model's; a fast one.
        on_rows: Called with the rows read so far, once a batch (at most 256 rows).
        should_stop: Asked as often; True gives up and leaves nothing behind.
        tokenising: How rows become tokens.

    Returns:
        The corpus; it may be without samples if every row is rejected: `workers.data.rejection.enforce_limit` says
        whether too many are.

    Raises:
        DatasetError: ``empty``, and those of `iter_records`, `recognise` and `ConversationEncoder`.
        Stopped: ``should_stop`` said so.
    """
    settings, wanted = tokenising["settings"], tokenising.get("wanted", EVERY_REPLY)
    encoder = _encoder(tokenizer, tokenising)
    shape, final = _place(snapshot, tokenising["columns"], wanted, encoder, settings)
    with contextlib.suppress(CorpusDamaged):
        return Corpus.open(final)

    def fill(writer: _Writer) -> None:
        records = iter_records(snapshot, settings, frozenset(shape.columns.values()), writer.starts)
        for rows in _tokenised(_batches(records, shape, wanted, settings), encoder, writer):
            _tell(rows, on_rows, should_stop)
        check_not_empty(writer.rows_total)
        writer.ignore(unread_columns(snapshot, settings, frozenset(shape.columns.values())))
        writer.finish(shape, read_columns(snapshot, settings))

    return _made(final, fill, wanted)


def corpus_of_pieces(
    key: str,
    cut: Cut | None,
    pieces: Iterator[Piece],
    *,
    on_rows: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    **tokenising: Unpack[Tokenising],
) -> Corpus:
    """The corpus that `build_corpus` makes of a dataset, without the dataset, or find it done before likewise.

    Args:
        key: The corpus's, as `corpus_key` gave it.
        cut: How the dataset was cut; None where the corpus has been made.
        pieces: Those of all ranges, in order.
        on_rows: Called with the rows so far, once a piece.
        should_stop: As for `build_corpus`.
        tokenising: How rows became tokens.

    Raises:
        CorpusDamaged: It has been made, but is damaged, and there is no cut.
        ColumnsDiffer: Another corpus is the dataset's.
        DatasetError: ``empty``, ``too_many_rows``, and those of `shape_for`.
        Stopped: ``should_stop`` said so.
    """
    settings, wanted = tokenising["settings"], tokenising.get("wanted", EVERY_REPLY)
    final = _directory(key, settings)
    try:
        return Corpus.open(final)
    except CorpusDamaged:
        if cut is None:
            raise
    shape = shape_for(cut.columns, tokenising["columns"], wanted)

    def fill(writer: _Writer) -> None:
        for piece in pieces:
            _tell(writer.append(piece, settings), on_rows, should_stop)
        check_not_empty(writer.rows_total)
        columns = cut.columns if cut.exact else storable_columns(writer.columns)
        if shape_for(columns, tokenising["columns"], wanted) != shape:
            raise ColumnsDiffer(columns)
        writer.ignore(cut.unread)
        writer.finish(shape, columns)

    return _made(final, fill, wanted)


def _tell(rows: int, on_rows: Callable[[int], None] | None, should_stop: Callable[[], bool] | None) -> None:
    if should_stop is not None and should_stop():
        raise Stopped
    if on_rows is not None:
        on_rows(rows)


def _made(final: Path, fill: Callable[[_Writer], None], wanted: Wanted) -> Corpus:
    """Write a corpus, and give it its name."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{os.getpid()}-{secrets.token_hex(8)}")
    temporary.mkdir()
    try:
        with _Writer(temporary, wanted) as writer:
            fill(writer)
        return _publish(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_piece(
    snapshot: Snapshot,
    tokenizer: PreTrainedTokenizerBase,
    ranges: Sequence[Range],
    names: list[str],
    *,
    should_stop: Callable[[], bool],
    **tokenising: Unpack[Tokenising],
) -> Piece:
    """Tokenise some ranges of a dataset; `corpus_of_pieces` makes the corpus of the pieces of all ranges.

    Args:
        snapshot: From `workers.data.fetch.fetch`, or with these ranges alone from `workers.data.fetch_ranges`.
        tokenizer: The model's; a fast one.
        ranges: Consecutive ones of `workers.data.ranges.ranges_of`.
        names: The columns by which the rows are read.
        should_stop: As for `build_corpus`.
        tokenising: How rows become tokens.

    Raises:
        DatasetError: Those of `iter_records`, `recognise` and `ConversationEncoder`.
        Stopped: ``should_stop`` said so.
    """
    settings, wanted = tokenising["settings"], tokenising.get("wanted", EVERY_REPLY)
    shape, encoder = shape_for(names, tokenising["columns"], wanted), _encoder(tokenizer, tokenising)
    temporary = settings.cache_path / "corpora" / f".{os.getpid()}-{secrets.token_hex(8)}"
    temporary.mkdir(parents=True)
    try:
        with _Writer(temporary, wanted) as writer:
            records = iter_ranges(snapshot, settings, frozenset(shape.columns.values()), ranges, writer.starts)
            records = _noted(records, writer.columns)
            for _ in _tokenised(_batches(records, shape, wanted, settings), encoder, writer):
                if should_stop():
                    raise Stopped
            writer.finish(shape, list(writer.columns))
        return Piece.read(temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def find_corpus(
    snapshot: Snapshot, tokenizer: PreTrainedTokenizerBase, **tokenising: Unpack[Tokenising]
) -> Corpus | None:
    """The corpus that `build_corpus` would find done; None where it would make it."""
    try:
        return Corpus.open(_place_of(snapshot, tokenizer, tokenising))
    except CorpusDamaged:
        return None


def corpus_key(
    snapshot: Snapshot, tokenizer: PreTrainedTokenizerBase, names: list[str], **tokenising: Unpack[Tokenising]
) -> str:
    """What names the corpus that is made of a dataset with these columns: 64 hexadecimal digits.

    Raises:
        DatasetError: As `shape_for`, and ``ConversationEncoder``.
    """
    wanted = tokenising.get("wanted", EVERY_REPLY)
    shape = shape_for(names, tokenising["columns"], wanted)
    return _key(snapshot, shape, wanted, _encoder(tokenizer, tokenising), tokenising["settings"])


def has_corpus(key: str, settings: Settings) -> bool:
    """Whether a corpus has been made on this machine."""
    return _directory(key, settings).is_dir()


def _directory(key: str, settings: Settings) -> Path:
    return settings.cache_path / "corpora" / key


def _place_of(snapshot: Snapshot, tokenizer: PreTrainedTokenizerBase, tokenising: Tokenising) -> Path:
    encoder, settings = _encoder(tokenizer, tokenising), tokenising["settings"]
    return _place(snapshot, tokenising["columns"], tokenising.get("wanted", EVERY_REPLY), encoder, settings)[1]


def _encoder(tokenizer: PreTrainedTokenizerBase, tokenising: Tokenising) -> ConversationEncoder:
    limits = template_limits(tokenising["settings"])
    return ConversationEncoder(tokenizer, tokenising["max_length"], limits, tokenising.get("template"))


def _place(
    snapshot: Snapshot,
    columns: Mapping[str, str] | None,
    wanted: Wanted,
    encoder: ConversationEncoder,
    settings: Settings,
) -> tuple[Shape, Path]:
    """How the rows are read, and where the corpus of that is.

    Raises:
        DatasetError: The dataset has no columns, or not those.
    """
    names = read_columns(snapshot, settings)
    if not names:
        _fail_without_columns(snapshot, settings)
    shape = shape_for(names, columns, wanted)
    return shape, _directory(_key(snapshot, shape, wanted, encoder, settings), settings)


def _fail_without_columns(snapshot: Snapshot, settings: Settings) -> None:
    """No row could be read: say whether there is none, or why not."""
    describe(snapshot, settings)


def shape_for(names: list[str], columns: Mapping[str, str] | None, wanted: Wanted) -> Shape:
    """The shape of a dataset's rows; one of pairs if a pair's difference is to be learned.

    Raises:
        DatasetError: ``no_pairs``, and those of `recognise`.
    """
    shape = recognise(names, columns)
    if wanted.preference == "dpo" and shape.name is not ShapeName.PREFERENCE:
        raise DatasetError(
            "no_pairs",
            f"preference is 'dpo', but the rows are read as {shape.name}: name the columns of the pair with "
            '"columns": {"chosen": "...", "rejected": "..."}',
        )
    return shape


def _key(snapshot: Snapshot, shape: Shape, wanted: Wanted, encoder: ConversationEncoder, settings: Settings) -> str:
    made_from = [
        LAYOUT_VERSION,
        snapshot.fingerprint,
        snapshot.format,
        snapshot.compression,
        shape.name,
        sorted(shape.columns.items()),
        sorted(shape.named),
        [wanted.train_on, wanted.preference],
        encoder.fingerprint(),
        settings.row_max_bytes,
    ]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


class _Batch:
    """Rows on their way to the tokenizer: conversations, or the reasons why not."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.conversations: list[Conversation] = []
        self.rejected: list[tuple[int, Reason]] = []
        self.characters = 0

    @property
    def full(self) -> bool:
        """Whether it is time to tokenise."""
        return len(self.rows) + len(self.rejected) >= BATCH_ROWS or self.characters >= BATCH_CHARACTERS

    def add(self, row: int, conversation: Conversation | Reason, row_max_bytes: int) -> None:
        """Take one row."""
        if isinstance(conversation, Reason):
            self.rejected.append((row, conversation))
            return
        characters = conversation.characters()
        if characters > row_max_bytes:  # Parquet rows are not measured when they are read
            self.rejected.append((row, Reason.ROW_TOO_LONG))
            return
        self.rows.append(row)
        self.conversations.append(conversation)
        self.characters += characters

    def all(self) -> list[Conversation]:
        """The conversations, then those of them that are not preferred."""
        return [*self.conversations, *(one.rejected for one in self.conversations if one.rejected is not None)]

    def write(self, encoded: list[Encoded | Refusal], writer: _Writer) -> None:
        """Write the tokens of `all`."""
        for row, reason in self.rejected:
            writer.reject(row, Refusal(reason))
        beside = iter(encoded[len(self.conversations) :])
        kept: list[tuple[int, list[Encoded]]] = []
        for row, conversation, one in zip(self.rows, self.conversations, encoded, strict=False):
            pair = [one] if conversation.rejected is None else [one, next(beside)]
            refused = next((each for each in pair if isinstance(each, Refusal)), None)
            if refused is not None:
                writer.reject(row, refused)
                continue
            good = [each for each in pair if isinstance(each, Encoded)]
            writer.ignore(dict.fromkeys(conversation.ignored.union(*(each.ignored for each in good)), 1))
            kept.append((row, good))
        writer.write(kept)


def _noted(records: Iterator[Record | BadRecord], columns: RowColumns) -> Iterator[Record | BadRecord]:
    """The records, with their columns noted."""
    for record in records:
        if not isinstance(record, BadRecord):
            columns.add(record.values)
        yield record


def _batches(
    records: Iterator[Record | BadRecord], shape: Shape, wanted: Wanted, settings: Settings
) -> Iterator[_Batch]:
    batch = _Batch()
    for record in records:
        read = record.reason if isinstance(record, BadRecord) else to_conversation(record.values, shape, wanted)
        batch.add(record.row, read, settings.row_max_bytes)
        if batch.full:
            yield batch
            batch = _Batch()
    yield batch


def _tokenised(batches: Iterator[_Batch], encoder: ConversationEncoder, writer: _Writer) -> Iterator[int]:
    """Write all batches; yields the rows so far after each."""
    for batch, rendered in _rendered(batches, encoder):
        batch.write(encoder.tokenise(rendered), writer)
        yield writer.rows_total


def _rendered(
    batches: Iterator[_Batch], encoder: ConversationEncoder
) -> Iterator[tuple[_Batch, list[Rendered | Refusal]]]:
    """Each batch with its texts; the process that renders is a batch ahead of whoever takes them."""
    with ThreadPoolExecutor(1, "render") as ahead:
        waiting: tuple[_Batch, Future[list[Rendered | Refusal]]] | None = None
        for batch in batches:
            following = (batch, ahead.submit(encoder.render, batch.all()))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """The samples of some consecutive rows of a dataset, which are numbered from 0.

    Attributes:
        arrays: The files of a corpus, and the rows that cannot be used as ``rejected.<reason>``.
        about: What is told about them, as JSON.
    """

    arrays: dict[str, NDArray[Any]]
    about: str

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Take a piece from where a writer has written it."""
        arrays = {name: np.fromfile(directory / f"{name}.bin", dtype) for name, dtype in _DTYPES.items()}
        with np.load(directory / "rejected.npz", allow_pickle=False) as archive:
            arrays |= {f"{_REJECTED}{name}": archive[name] for name in archive.files}
        return cls(arrays, (directory / "about.json").read_text())


class _Writer:
    """The growing files of a corpus and what is told about them."""

    def __init__(self, directory: Path, wanted: Wanted) -> None:
        self._directory = directory
        self._wanted = wanted
        self._rejected: dict[Reason, array[int]] = {}
        self._said: dict[Reason, str] = {}
        self._needed = 0
        self._ignored = IgnoredFields()
        self._hashes = {name: hashlib.sha256() for name in _DTYPES}
        self._end = 0
        self._truncated = 0
        self._files = contextlib.ExitStack()
        self._open: dict[str, BinaryIO] = {}
        self.rows_total = 0
        self.starts: list[int] = []
        self.columns = RowColumns()

    def __enter__(self) -> Self:
        for name in _DTYPES:
            self._open[name] = self._files.enter_context((self._directory / f"{name}.bin").open("wb"))
        self._append("offsets", np.zeros(1, dtype=np.int64))
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def reject(self, row: int, refusal: Refusal) -> None:
        """Note a row that cannot be used."""
        self._rejected.setdefault(refusal.reason, array("q")).append(row)
        if refusal.said:
            self._said.setdefault(refusal.reason, refusal.said)
        self._needed = max(self._needed, refusal.needed)
        self.rows_total += 1

    def ignore(self, fields: Mapping[str, int]) -> None:
        """Count rows that have fields which nothing reads."""
        self._ignored.add(fields)

    def write(self, rows: list[tuple[int, list[Encoded]]]) -> None:
        """Append samples in order."""
        if not rows:
            return
        samples = [one for _, pair in rows for one in pair]
        ends = self._end + np.cumsum([len(one.input_ids) for one in samples])
        self._append("ids", np.concatenate([one.input_ids for one in samples]))
        self._append("mask", np.concatenate([one.loss_mask for one in samples]))
        self._append("offsets", ends)
        self._append("rows", np.array([row for row, _ in rows]))
        self._append("digests", np.frombuffer(b"".join(_row_digest(pair) for _, pair in rows), dtype=np.uint64))
        self._end = int(ends[-1])
        self._truncated += sum(any(one.truncated for one in pair) for _, pair in rows)
        self.rows_total += len(rows)

    def append(self, piece: Piece, settings: Settings) -> int:
        """Append the samples of a piece, and what it tells; the rows so far.

        Raises:
            DatasetError: ``too_many_rows``.
        """
        about, first = json.loads(piece.about), self.rows_total
        self.starts += [first + start for start in about["starts"]]
        self.columns.add(dict.fromkeys(about["names"]))
        for name in ("ids", "mask", "digests"):
            self._append(name, piece.arrays[name])
        self._append("offsets", piece.arrays["offsets"][1:] + self._end)
        self._append("rows", piece.arrays["rows"] + first)
        for name, rows in piece.arrays.items():
            if name.startswith(_REJECTED):
                reason = Reason(name.removeprefix(_REJECTED))
                self._rejected.setdefault(reason, array("q")).extend((rows + first).tolist())
        for name, said in about["said"].items():
            self._said.setdefault(Reason(name), said)
        self._needed = max(self._needed, about["needed"])
        self._ignored.add(about["ignored"])
        self._end += int(piece.arrays["offsets"][-1])
        self._truncated += about["truncated"]
        self.rows_total += about["rows_total"]
        check_rows(self.rows_total, settings)
        return self.rows_total

    def finish(self, shape: Shape, columns: list[str]) -> None:
        """Write what is told about the samples, and about the columns of their dataset."""
        for file in self._open.values():
            file.flush()
            os.fsync(file.fileno())
        rejected = {str(reason): np.sort(np.array(rows, dtype=np.int64)) for reason, rows in self._rejected.items()}
        np.savez(self._directory / "rejected.npz", allow_pickle=False, **rejected)
        about = {
            "digest": _digest({name: digest.hexdigest() for name, digest in self._hashes.items()}),
            "rows_total": self.rows_total,
            "truncated": self._truncated,
            "wanted": [self._wanted.train_on, self._wanted.preference],
            "starts": self.starts,
            "said": self._said,
            "needed": self._needed,
            "ignored": self._ignored.counted(),
            "names": columns,
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


def _row_digest(pair: list[Encoded]) -> bytes:
    """Digest of the tokens and masks of a sample, or of a pair of them: the address of its sketch."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for one in pair:
        digest.update(len(one.input_ids).to_bytes(8, "little"))
        digest.update(one.input_ids.astype(_DTYPES["ids"], copy=False).tobytes())
        digest.update(one.loss_mask.astype(_DTYPES["mask"], copy=False).tobytes())
    return digest.digest()


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
