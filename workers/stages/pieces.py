"""Read a large dataset in ranges, which the workers of the queue `gradients` share and which stay for other machines.

A range's tokens are a piece, an object of the artifact store under the key of the corpus that all pieces make. The job
is parked until all pieces are there; a worker that needs the corpus then puts it together and tokenises nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from app.core.contracts.job_plan import RangesPlan
from app.core.storage import piece_name, pieces_prefix
from workers.data.corpus import Piece, corpus_key, has_corpus, read_piece
from workers.data.formats import read_columns
from workers.data.ranges import ranges_of
from workers.gradients.checked_tensors import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedTokenizerBase

    from workers.data.corpus import Tokenising
    from workers.data.fetch import Snapshot
    from workers.data.formats import Range
    from workers.runtime.context import WorkerContext

logger = logging.getLogger(__name__)

LARGEST_SIZE = 2**31 - 1
"""What the database holds as the size of a unit of work."""


class Pieces:
    """The pieces of one corpus.

    Attributes:
        plan: What other workers need to know to cut the dataset alike.
    """

    def __init__(self, context: WorkerContext, groups: list[list[Range]], plan: RangesPlan) -> None:
        self._artifacts = context.artifacts
        self._groups = groups
        self.plan = plan

    @classmethod
    def of(
        cls, context: WorkerContext, snapshot: Snapshot, tokenizer: PreTrainedTokenizerBase, how: Tokenising
    ) -> Self | None:
        """The pieces that this worker's settings cut a dataset into; None where it is read as a whole."""
        range_bytes = context.settings.read_range_bytes
        if snapshot.bytes <= range_bytes:
            return None
        groups = ranges_of(snapshot, context.settings, range_bytes)
        if len(groups) == 1:
            return None
        columns = read_columns(snapshot, context.settings)
        plan = RangesPlan(key=corpus_key(snapshot, tokenizer, **how), range_bytes=range_bytes, columns=columns)
        return cls(context, groups, plan)

    @classmethod
    def planned(cls, context: WorkerContext, snapshot: Snapshot, plan: RangesPlan) -> Self:
        """The pieces that another worker has planned."""
        return cls(context, ranges_of(snapshot, context.settings, plan.range_bytes), plan)

    def put_together(self, context: WorkerContext) -> bool:
        """Whether this machine has the corpus that they make."""
        return has_corpus(self.plan.key, context.settings)

    def missing(self) -> dict[int, int]:
        """Number and size in bytes of each piece that is not there."""
        there = {stored.name for stored in self._artifacts.list(pieces_prefix(self.plan.key))}
        return {
            number: min(sum(each.bytes for each in group), LARGEST_SIZE)
            for number, group in enumerate(self._groups)
            if self._name(number) not in there
        }

    def make(
        self,
        number: int,
        snapshot: Snapshot,
        tokenizer: PreTrainedTokenizerBase,
        how: Tokenising,
        should_stop: Callable[[], bool],
    ) -> None:
        """Read a piece, unless another worker has read it meanwhile.

        Raises:
            DatasetError: As `read_piece`.
            Stopped: `should_stop` said so.
            StorageFailed: The store does not take it.
        """
        if self._artifacts.stat(self._name(number)) is not None:
            return
        piece = read_piece(
            snapshot,
            tokenizer,
            self._groups[number],
            self.plan.columns,
            should_stop=should_stop,
            **how,
        )
        self._artifacts.write(self._name(number), pack(piece.arrays, {"about": piece.about}))

    def each(self, key: str) -> Iterator[Piece]:
        """All pieces in order.

        Args:
            key: Of the corpus that they are put together to.

        Raises:
            PieceLost: One is not there or damaged; it is missing from now on.
        """
        if key != self.plan.key:
            raise PieceLost(f"the corpus is {key}, and the pieces are of {self.plan.key}")
        for number in range(len(self._groups)):
            name = self._name(number)
            content = self._artifacts.read(name)
            found = None if content is None else unpack(content)
            if found is None:
                self._artifacts.remove(name)
                raise PieceLost(f"{name} is missing or damaged")
            yield Piece(found.tensors, found.metadata["about"])

    def _name(self, number: int) -> str:
        return piece_name(self.plan.key, self.plan.range_bytes, number)


class PieceLost(Exception):
    """A corpus cannot be put together: its dataset is read again."""
