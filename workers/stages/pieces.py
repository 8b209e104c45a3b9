"""Read a large dataset in ranges, which the workers of the queue `gradients` share and which stay for other machines.

A range's tokens are a piece, an object of the artifact store under the key of the corpus that all pieces make. How the
dataset is cut lies beside them, so that a worker fetches and reads its ranges alone. The job is parked until all pieces
are there; a worker that needs the corpus then puts it together, without the dataset, and tokenises nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from app.core.storage import cut_name, piece_name, pieces_prefix
from workers.data.corpus import CorpusDamaged, Piece, corpus_key, corpus_of_pieces, has_corpus, read_piece, shape_for
from workers.data.errors import DatasetError
from workers.data.formats import columns_known, first_columns, read_columns
from workers.data.ranges import Cut
from workers.gradients.checked_tensors import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import PreTrainedTokenizerBase

    from app.core.storage import ArtifactStore
    from workers.data.corpus import Corpus, Tokenising
    from workers.data.fetch import Snapshot
    from workers.data.formats import Range
    from workers.runtime.context import WorkerContext

logger = logging.getLogger(__name__)

LARGEST_SIZE = 2**31 - 1
"""What the database holds as the size of a unit of work."""


class Pieces:
    """The pieces of one corpus.

    Attributes:
        key: The corpus's.
        cut: How its dataset is cut; None where nobody has cut it.
        columns: By which its rows are read.
    """

    def __init__(self, artifacts: ArtifactStore, key: str, how: Tokenising) -> None:
        """Look at what there is.

        Args:
            artifacts: Where pieces are.
            key: Of the corpus.
            how: How rows become its tokens.
        """
        self.key, self._artifacts, self._how = key, artifacts, how
        self.cut = self._stored()
        self.columns = [] if self.cut is None else self.cut.columns

    @classmethod
    def of(
        cls, context: WorkerContext, snapshot: Snapshot, tokenizer: PreTrainedTokenizerBase, how: Tokenising
    ) -> Self | None:
        """The pieces of a dataset; None where it is so small that it is read as a whole.

        How JSON rows are read is taken from those at the beginning, unless the columns of all of them are known.

        Raises:
            DatasetError: The dataset has no columns, or not those that are wanted.
        """
        settings = context.settings
        if snapshot.bytes <= settings.read_range_bytes:
            return None
        names = columns_known(snapshot) or first_columns(snapshot, settings, settings.read_range_bytes)
        try:
            key = corpus_key(snapshot, tokenizer, names, **how)
        except DatasetError:  # these rows do not tell
            names = read_columns(snapshot, settings)
            if not names:
                return None
            key = corpus_key(snapshot, tokenizer, names, **how)
        found = cls(context.artifacts, key, how)
        found.columns = names
        return found

    def put_together(self) -> bool:
        """Whether this machine has the corpus that they make."""
        return has_corpus(self.key, self._how["settings"])

    def there(self) -> bool:
        """Whether this machine can have that corpus without reading the dataset."""
        return self.put_together() or (self.cut is not None and not self.missing())

    def missing(self) -> dict[int, int]:
        """Number and size in bytes of each piece that is not there, of those that the dataset is cut into."""
        if self.cut is None:
            return {}
        there = {stored.name for stored in self._artifacts.list(pieces_prefix(self.key))}
        return {
            number: min(sum(each.bytes for each in group), LARGEST_SIZE)
            for number, group in enumerate(self.cut.groups)
            if piece_name(self.key, number) not in there
        }

    def cut_up(self, snapshot: Snapshot) -> None:
        """Cut the dataset, unless somebody has, or a single range would come of it.

        Raises:
            DatasetError: It can't be read.
        """
        if self.cut is not None:
            return
        settings = self._how["settings"]
        read = frozenset(shape_for(self.columns, self._how["columns"], self._how["wanted"]).columns.values())
        cut = Cut.of(snapshot, settings, settings.read_range_bytes, self.columns, read)
        if len(cut.groups) > 1:
            self._artifacts.write_new(cut_name(self.key), pack({}, {"about": cut.model_dump_json()}))
            self.cut = self._stored()

    def ranges(self, number: int) -> Sequence[Range]:
        """What a piece is read from."""
        return () if self.cut is None else self.cut.groups[number]

    def has(self, number: int) -> bool:
        """Whether a piece is there."""
        return self._artifacts.stat(piece_name(self.key, number)) is not None

    def make(
        self, number: int, snapshot: Snapshot, tokenizer: PreTrainedTokenizerBase, should_stop: Callable[[], bool]
    ) -> None:
        """Read a piece.

        Args:
            number: Which.
            snapshot: The dataset, or at least the ranges of the piece.
            tokenizer: The model's.
            should_stop: Asked once a batch.

        Raises:
            DatasetError: As `read_piece`.
            Stopped: `should_stop` said so.
            StorageFailed: The store does not take it.
        """
        piece = read_piece(snapshot, tokenizer, self.ranges(number), self.columns, should_stop=should_stop, **self._how)
        self._artifacts.write(piece_name(self.key, number), pack(piece.arrays, {"about": piece.about}))

    def corpus(self, should_stop: Callable[[], bool], on_rows: Callable[[int], None] | None = None) -> Corpus:
        """The corpus that they make.

        Raises:
            PieceLost: A piece is not there or damaged; it is missing from now on.
            ColumnsDiffer: Another corpus is the dataset's.
            DatasetError: The dataset is of no use.
            Stopped: `should_stop` said so.
        """
        try:
            return corpus_of_pieces(
                self.key, self.cut, self._each(), on_rows=on_rows, should_stop=should_stop, **self._how
            )
        except CorpusDamaged as error:
            raise PieceLost(str(error)) from error

    def _each(self) -> Iterator[Piece]:
        """All pieces in order."""
        for number in range(0 if self.cut is None else len(self.cut.groups)):
            name = piece_name(self.key, number)
            content = self._artifacts.read(name)
            found = None if content is None else unpack(content)
            if found is None:
                self._artifacts.remove(name)
                raise PieceLost(f"{name} is missing or damaged")
            yield Piece(found.tensors, found.metadata["about"])

    def _stored(self) -> Cut | None:
        content = self._artifacts.read(cut_name(self.key))
        if content is None:
            return None
        found = unpack(content)
        if found is None:
            self._artifacts.remove(cut_name(self.key))
            return None
        return Cut.model_validate_json(found.metadata["about"])


class PieceLost(Exception):
    """A corpus cannot be put together: its dataset is read again."""
