"""What a selection has to keep to: tokens, sources, rows that must or must not be in it, and no near-duplicates."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from workers.selection.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workers.selection.result import StopReason


class ConstraintError(ValueError):
    """Constraints that no selection of these rows can meet; the message has the numbers.

    Attributes:
        constraint: Which: "tokens", "sources", "include" or "budget".
        picked: Rows that were picked where a selection ended with too few of a source; None where none was begun.
        stop: Why that selection ended.
    """

    def __init__(
        self, constraint: str, message: str, picked: int | None = None, stop: StopReason | None = None
    ) -> None:
        super().__init__(message)
        self.constraint, self.picked, self.stop = constraint, picked, stop


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """How many rows of each source a selection may hold.

    Attributes:
        names: Of the sources, g of them.
        of_row: The source of each row, as a place in `names`, shape (n,), int64.
        least: Fewest rows of each source, shape (g,), int64.
        most: Most rows of each source, shape (g,), int64.
    """

    names: tuple[str, ...]
    of_row: NDArray[np.int64]
    least: NDArray[np.int64]
    most: NDArray[np.int64]

    def check_shapes(self, n: int) -> None:
        """Refuse what does not name a source for each of n rows and limits for each source.

        Raises:
            ConfigError: If so.
        """
        count = len(self.names)
        if self.of_row.shape != (n,) or not (len(self.least) == len(self.most) == count):
            raise ConfigError(f"sources need a source for each of {n} rows and limits for each of {count} sources")

    def check_feasible(self, budget: int | None, eligible: NDArray[np.bool_], included: NDArray[np.bool_]) -> None:
        """Refuse limits that no selection can keep to; the message has the numbers.

        Args:
            budget: Rows to pick, or None.
            eligible: Rows that may be picked, shape (n,).
            included: Rows that have to be, shape (n,).

        Raises:
            ConstraintError: If no selection can.
        """
        there = np.bincount(self.of_row[eligible | included], minlength=len(self.names))
        held = np.bincount(self.of_row[included], minlength=len(self.names))
        for name, least, most, rows, kept in zip(self.names, self.least, self.most, there, held, strict=True):
            if least > most:
                raise ConstraintError("sources", f"source {name!r}: at least {least} rows and at most {most}")
            if least > rows:
                raise ConstraintError("sources", f"source {name!r}: at least {least} rows, and {rows} can be selected")
            if kept > most:
                raise ConstraintError("include", f"source {name!r}: include has {kept} rows of at most {most}")
        if budget is None:
            return
        needed = int(np.maximum(held, self.least).sum())
        if needed > budget:
            raise ConstraintError(
                "sources", f"include and the fewest rows of each source are {needed}, budget is {budget}"
            )
        possible = int(np.minimum(there, self.most).sum())
        if possible < budget:
            raise ConstraintError("sources", f"the most rows of each source are {possible}, budget is {budget}")

    def lacking(self, rows: Sequence[int]) -> str | None:
        """The message about the first source that a set of rows has too few of; None if it has enough of each.

        Args:
            rows: Row numbers.
        """
        held = np.bincount(self.of_row[np.array(rows, dtype=np.int64)], minlength=len(self.names))
        for name, least, count in zip(self.names, self.least, held, strict=True):
            if count < least:
                return f"source {name!r}: at least {least} rows, and the other constraints left {count}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constraints:
    """What the selected rows have to keep to, all of it at once.

    Attributes:
        tokens: What training on each row costs, shape (n,), int64, at least 1; needed for `token_budget`.
        token_budget: Most tokens of all selected rows together.
        sources: Fewest and most rows of each source.
        include: Rows that are selected whatever they gain, first and in this order, shape (m,), int64.
        exclude: Rows that are never selected, shape (m,), int64.
        near_cosine: No row is picked whose sketch has this cosine or more with that of a selected row.
        near_rows: The sketches whose cosines count for that, shape (n, p); None: those that are selected from. Under a
            metric the cosines of the rows as they were are meant.
        price: What each row's score loses whatever else is selected, shape (n,), float64, nats, at least 0.
    """

    tokens: NDArray[np.int64] | None = None
    token_budget: int | None = None
    sources: Sources | None = None
    include: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    exclude: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    near_cosine: float | None = None
    near_rows: NDArray[np.float32] | None = None
    price: NDArray[np.float64] | None = None

    @property
    def bind(self) -> bool:
        """Whether any of them keeps a row out or in; a price alone does not."""
        rows = len(self.include) + len(self.exclude)
        return rows > 0 or self.token_budget is not None or self.sources is not None or self.near_cosine is not None

    def check_values(self, n: int, budget: int | None) -> None:
        """Refuse wrong shapes and values.

        Args:
            n: Number of rows.
            budget: Rows to pick, or None for tokens alone.

        Raises:
            ConfigError: If a value is out of its range.
            ConstraintError: If a row must be and must not be selected.
        """
        self._check_numbers(n, budget)
        for name, rows in (("include", self.include), ("exclude", self.exclude)):
            if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < n):
                raise ConfigError(f"{name} names row {int(rows.max())} of {n} rows, numbered from 0")
        if len(np.unique(self.include)) < len(self.include):
            raise ConfigError("include names a row twice")
        both = np.intersect1d(self.include, self.exclude)
        if both.size:
            raise ConstraintError("include", f"row {both[0]} is in include and in exclude")
        if self.sources is not None:
            self.sources.check_shapes(n)

    def check_feasible(self, budget: int | None, eligible: NDArray[np.bool_]) -> None:
        """Refuse what no selection can meet.

        Args:
            budget: Rows to pick, or None for tokens alone.
            eligible: Rows that may be picked, shape (n,): finite, not zero, not excluded.

        Raises:
            ConstraintError: If no selection can meet them.
        """
        included = np.zeros(len(eligible), dtype=bool)
        included[self.include] = True
        if budget is not None and len(self.include) > budget:
            raise ConstraintError("include", f"include has {len(self.include)} rows, budget is {budget}")
        if self.token_budget is not None and self.tokens is not None:
            self._check_tokens(self.tokens, self.token_budget, eligible, included)
        if self.sources is not None:
            self.sources.check_feasible(budget, eligible, included)

    def most_rows(self, n: int) -> int:
        """How many of n rows exclusion and the sources let in together.

        Args:
            n: Number of rows.
        """
        if self.sources is None:
            return n - len(self.exclude)
        usable = np.ones(n, dtype=bool)
        usable[self.exclude] = False
        there = np.bincount(self.sources.of_row[usable], minlength=len(self.sources.names))
        return int(np.minimum(there, self.sources.most).sum())

    def of(self, rows: NDArray[np.int64]) -> Constraints:
        """The same for some rows alone, as parts need them: a source with few rows there has to give only those.

        Args:
            rows: Row numbers, ascending, every row of `include` among them.
        """
        sources = self.sources
        if sources is not None:
            of_row = sources.of_row[rows]
            there = np.bincount(of_row, minlength=len(sources.names))
            sources = replace(sources, of_row=of_row, least=np.minimum(sources.least, there))
        excluded = self.exclude[np.isin(self.exclude, rows)]
        return replace(
            self,
            tokens=None if self.tokens is None else self.tokens[rows],
            sources=sources,
            include=np.searchsorted(rows, self.include),
            exclude=np.searchsorted(rows, excluded),
            near_rows=None if self.near_rows is None else self.near_rows[rows],
            price=None if self.price is None else self.price[rows],
        )

    def _check_numbers(self, n: int, budget: int | None) -> None:
        for name, values in (("tokens", self.tokens), ("price", self.price)):
            if values is not None and values.shape != (n,):
                raise ConfigError(f"{name} has shape {values.shape}; there are {n} rows")
        if self.tokens is not None and (self.tokens < 1).any():
            raise ConfigError(f"row {int(np.argmax(self.tokens < 1))} has no tokens; each row needs at least 1")
        if self.token_budget is not None and (self.tokens is None or self.token_budget < 1):
            raise ConfigError(
                f"token_budget is {self.token_budget}; it must be at least 1, with the tokens of each row"
            )
        if budget is None and self.token_budget is None:
            raise ConfigError("budget is None; a selection needs a budget of rows or of tokens")
        if self.near_rows is not None and len(self.near_rows) != n:
            raise ConfigError(f"near_rows has {len(self.near_rows)} rows; there are {n}")
        if self.near_cosine is not None and not 0 < self.near_cosine <= 1:
            raise ConfigError(f"near_cosine is {self.near_cosine}; it must be in (0, 1] or None")
        if self.price is not None and not (np.isfinite(self.price) & (self.price >= 0)).all():
            raise ConfigError("price must be finite and at least 0 for each row")

    def _check_tokens(
        self, tokens: NDArray[np.int64], limit: int, eligible: NDArray[np.bool_], included: NDArray[np.bool_]
    ) -> None:
        needed = int(tokens[included].sum())
        if needed > limit:
            raise ConstraintError("include", f"include has {needed} tokens, the token budget is {limit}")
        if not included.any() and eligible.any() and int(tokens[eligible].min()) > limit:
            shortest = int(tokens[eligible].min())
            raise ConstraintError("tokens", f"the token budget is {limit}, the shortest row has {shortest} tokens")
        if self.sources is not None:
            fewest = needed
            for source, least in enumerate(self.sources.least):
                mine = self.sources.of_row == source
                missing = int(least) - int((mine & included).sum())
                if missing > 0:
                    fewest += int(np.sort(tokens[mine & eligible & ~included])[:missing].sum())
            if fewest > limit:
                message = f"the fewest rows of each source have {fewest} tokens, the token budget is {limit}"
                raise ConstraintError("sources", message)
