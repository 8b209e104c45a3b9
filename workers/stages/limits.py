"""What the constraints of a request come to for the rows that may be picked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.constraints_request import EVERY_OTHER, RowsByColumn
from app.core.contracts.dataset_request import SOURCE_COLUMNS
from workers.data.errors import DatasetError
from workers.data.formats import read_columns
from workers.data.row_marks import NO_SOURCE, RowMarks, Wanted, read_marks
from workers.data.sources import source_column
from workers.runtime.failures import JobError
from workers.selection import Constraints, Shares, select_in_shares

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable

    from numpy.typing import NDArray

    from app.core.contracts.constraints_request import Constraints as Asked
    from app.core.contracts.constraints_request import Rows
    from app.core.contracts.dataset_request import DatasetRef
    from app.core.contracts.selection_request import SelectionSpec
    from app.core.db.tables import Json
    from app.core.settings import Settings
    from workers.data.corpus import Corpus
    from workers.data.fetch import Snapshot
    from workers.selection import Selection

    Numbers = NDArray[np.int64]

FIELD = "selection.constraints"
OTHERS = "(others)"
"""Stands for the rows of no source, and where nothing is said of `*`, of every source that has no limit."""
NAMED = 10
"""Sources that a message names."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What is left of an earlier job's picks.

    Attributes:
        job: The earlier job.
        rows: Row numbers in the pool of the picks that are there, in that job's order of picking.
        gone: Row numbers in that job's own dataset of the picks that are not, likewise.
    """

    job: uuid.UUID
    rows: Numbers
    gone: Numbers


@dataclass(frozen=True, slots=True, eq=False)
class Membership:
    """What a request and the dataset say of rows as members, by row number.

    Attributes:
        include: Rows that have to be picked, in this order.
        exclude: Rows that may not be, ascending.
        marks: What the dataset says; None where nothing was asked of it.
        column: The column that names a row's source; None where no limit is about sources.
        overlapping: Rows that share text with the evaluation set, ascending.
        evaluation: What is told of that set in the result; None without one.
        kept: The picks of an earlier job, which `include` begins with; None where none is extended.
    """

    include: Numbers
    exclude: Numbers
    marks: RowMarks | None
    column: str | None
    overlapping: Numbers
    evaluation: Json | None = None
    kept: Kept | None = None

    @property
    def kept_count(self) -> int:
        """How many picks of an earlier job are kept."""
        return 0 if self.kept is None else len(self.kept.rows)

    @classmethod
    def of_all(cls) -> Membership:
        """Where nothing is asked: every row may be picked, and none has to be."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(nothing, nothing, None, None, nothing)


def read_membership(
    snapshot: Snapshot,
    corpus: Corpus,
    spec: SelectionSpec,
    dataset: DatasetRef,
    settings: Settings,
    should_stop: Callable[[], bool],
) -> Membership:
    """Read what the constraints are about; rows are read once more if a column or their texts are asked for.

    Raises:
        JobError: A row or a column is not there, or a row must and must not be picked.
        Stopped: `should_stop` said so.
    """
    asked, nothing = spec.constraints, np.empty(0, dtype=np.int64)
    if asked is None:
        return Membership.of_all()
    columns = read_columns(snapshot, settings)
    wanted = Wanted(
        source=_source_column(snapshot, settings, dataset) if asked.sources else None,
        include=_column(asked.include, "include", columns),
        exclude=_column(asked.exclude, "exclude", columns),
        texts=asked.near_duplicates is not None and asked.near_duplicates.text,
    )
    marks = None
    if wanted.columns or wanted.texts:
        try:
            marks = read_marks(snapshot, corpus.shape, corpus.wanted, settings, wanted, should_stop)
        except DatasetError as error:
            raise impossible(FIELD, error.message) from error
    include = _rows(asked.include, marks.include if marks else nothing, corpus, "include")
    exclude = np.sort(_rows(asked.exclude, marks.exclude if marks else nothing, corpus, "exclude"))
    both = np.intersect1d(include, exclude)
    if len(both):
        raise impossible(f"{FIELD}.include", f"row {both[0]} is in include and in exclude: leave it in one of them")
    for row in include[~np.isin(include, corpus.rows)][:1].tolist():
        why = next((reason for reason, rows in corpus.rejected.items() if row in rows), "unusable")
        raise impossible(f"{FIELD}.include", f"row {row} can't be used ({why}): repair the row, or leave it out")
    return Membership(include, exclude, marks, wanted.source, nothing)


def _source_column(snapshot: Snapshot, settings: Settings, dataset: DatasetRef) -> str:
    try:
        found = source_column(snapshot, settings, dataset.source_column)
    except DatasetError as error:
        raise impossible("dataset.source_column", error.message) from error
    if found is None:
        raise impossible(
            f"{FIELD}.sources",
            f"the dataset has none of the columns {', '.join(SOURCE_COLUMNS)} (it has "
            f"{listed(read_columns(snapshot, settings))}): "
            "name the column with dataset.source_column",
        )
    return found


def _column(rows: Rows | None, field: str, columns: list[str]) -> str | None:
    if not isinstance(rows, RowsByColumn):
        return None
    if rows.column not in columns:
        raise impossible(
            f"{FIELD}.{field}.column",
            f"is {rows.column!r}, but the dataset's columns are {listed(columns)}: use one of those",
        )
    return rows.column


def _rows(asked: Rows | None, marked: Numbers, corpus: Corpus, field: str) -> Numbers:
    if not isinstance(asked, tuple):
        return marked
    if asked and max(asked) >= corpus.rows_total:
        raise impossible(
            f"{FIELD}.{field}",
            f"names row {max(asked)}, and the dataset has {corpus.rows_total} rows, numbered from 0: leave it out",
        )
    return np.array(asked, dtype=np.int64)


def same_texts(text: Numbers, rows: Numbers, include: Numbers) -> NDArray[np.bool_]:
    """Which of some rows have the text of another that may be picked in their place.

    Args:
        text: By row number, the first row with the same text.
        rows: Row numbers, ascending, shape (m,).
        include: Rows that have to be picked: of a text these stay, the others go.

    Returns:
        Shape (m,).
    """
    groups, must = text[rows], np.isin(rows, include)
    _, first = np.unique(groups, return_index=True)
    stays = np.zeros(len(rows), dtype=np.bool_)
    stays[first] = True
    taken = np.isin(groups, groups[must])
    return ~np.where(taken, must, stays)


def barred(rows: Numbers, membership: Membership) -> NDArray[np.bool_]:
    """Which of some rows no selection may pick: excluded, sharing text with an evaluation set, or of another's text.

    Args:
        rows: Row numbers, ascending, shape (m,).
        membership: What the constraints are about.

    Returns:
        Shape (m,).
    """
    found = np.isin(rows, membership.exclude) | np.isin(rows, membership.overlapping)
    if membership.marks is not None and len(membership.marks.text):
        may = np.flatnonzero(~found)
        found[may[same_texts(membership.marks.text, rows[may], membership.include)]] = True
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """The constraints of a request over n candidates, which they name by their places.

    Attributes:
        constraints: All but the limits by source; None where there are none.
        shares: Of the picks by source, or None.
    """

    constraints: Constraints | None
    shares: Shares | None

    def apply(
        self, budget: int | None, run: Callable[[int | None, Constraints | None], Selection]
    ) -> tuple[Selection, Constraints | None]:
        """Select within the limits.

        Args:
            budget: Rows to pick, or None where tokens alone end the selection.
            run: Selects at most so many rows within such constraints.

        Returns:
            The selection, and the constraints that it was made within.

        Raises:
            ConstraintError: They can't be met.
        """
        shares = self.shares
        if shares is None:
            return run(budget, self.constraints), self.constraints
        others = self.constraints or Constraints()
        found, sources = select_in_shares(
            lambda rows, limits: run(rows, replace(others, sources=limits)), shares, budget
        )
        return found, replace(others, sources=sources)

    def before(self, budget: int | None) -> Constraints | None:
        """The constraints before it is known how many rows come out: limits by source for as many as are asked for."""
        if self.shares is None or budget is None:
            return self.constraints
        return replace(self.constraints or Constraints(), sources=self.shares.of(budget))


def limits_of(
    asked: Asked | None,
    membership: Membership,
    rows: Numbers,
    tokens: Numbers,
    token_budget: int | None,
    price: NDArray[np.float64] | None,
    near_rows: NDArray[np.float32] | None,
) -> Limits:
    """The limits for the candidates.

    Args:
        asked: The request's constraints.
        membership: What they are about.
        rows: Row numbers of the candidates, ascending, shape (n,).
        tokens: Tokens that training on each reads, shape (n,).
        token_budget: Most tokens of all picks but those of an earlier job, or None.
        price: What each candidate's score loses for pulling against a purpose, nats, shape (n,); None: nothing.
        near_rows: The sketches that near-duplicates are told by, where others are selected from, shape (n, p).

    Raises:
        JobError: A source is named that no candidate has.
    """
    near = None if asked is None or asked.near_duplicates is None else asked.near_duplicates.cosine
    if token_budget is not None and membership.kept is not None:
        token_budget += int(tokens[np.searchsorted(rows, membership.kept.rows)].sum())
    constraints = Constraints(
        tokens=None if token_budget is None else tokens,
        token_budget=token_budget,
        include=np.searchsorted(rows, membership.include),
        exclude=np.flatnonzero(np.isin(rows, membership.exclude)),
        near_cosine=near,
        near_rows=None if near is None else near_rows,
        price=price,
    )
    shares = None
    if asked is not None and asked.sources and membership.marks is not None:
        shares = shares_of(asked, membership.marks, membership.column or "", rows)
    return Limits(constraints if constraints.bind or price is not None else None, shares)


def check_possible(spec: SelectionSpec, membership: Membership, corpus: Corpus, budget: int | None) -> None:
    """Refuse what no selection from all usable rows can meet; which of them have a gradient is not known yet.

    Args:
        spec: The request's.
        membership: What its constraints are about.
        corpus: The rows.
        budget: Rows to pick, or None where tokens alone end the selection.

    Raises:
        JobError: A source is named that no row has, or too few rows are left.
        ConstraintError: The constraints can't be met.
    """
    excluded, overlapping = (np.isin(corpus.rows, some) for some in (membership.exclude, membership.overlapping))
    may = ~(excluded | overlapping)
    needed = 1 if spec.budget.count is None else spec.budget.count + membership.kept_count
    if needed > may.sum() and len(may) >= needed:
        raise _too_few_left(needed, int(may.sum()), int(excluded.sum()), int(overlapping.sum()))
    limits = limits_of(spec.constraints, membership, corpus.rows, corpus.lengths, spec.budget.tokens, None, None)
    constraints = limits.before(budget)
    if constraints is not None:
        constraints.check_feasible(budget, may)


def _too_few_left(needed: int, left: int, excluded: int, overlapping: int) -> JobError:
    """Exclusion and decontamination leave fewer rows than a budget needs."""
    reasons = [f"{overlapping} share text with the set of decontaminate", f"{excluded} are excluded"]
    there = " and ".join(reason for reason, count in zip(reasons, (overlapping, excluded), strict=True) if count)
    return impossible(
        f"{FIELD}.{'decontaminate' if overlapping else 'exclude'}",
        f"leaves {left} usable rows ({there}), and the budget needs {needed}: drop fewer rows, or ask for fewer",
    )


def shares_of(asked: Asked, marks: RowMarks, column: str, rows: Numbers) -> Shares:
    """The shares of the picks by source.

    Args:
        asked: The request's constraints.
        marks: What the dataset says of its rows.
        column: The column of the sources, for a message.
        rows: Row numbers of those that may be picked, ascending, shape (n,).

    Raises:
        JobError: A source is named that no row of the dataset has.
    """
    wanted = asked.sources or {}
    source = marks.source[rows]
    there = np.bincount(marks.source[marks.source != NO_SOURCE], minlength=len(marks.names))
    known = {name: count for name, count in zip(marks.names, there.tolist(), strict=True) if count}
    for name in wanted:
        if name != EVERY_OTHER and name not in known:
            sources = ", ".join(f"{one!r} ({known[one]})" for one in sorted(known, key=known.__getitem__)[::-1][:NAMED])
            raise impossible(
                f"{FIELD}.sources.{name}",
                f"no row has {name!r} in column {column!r}; the sources there are {sources}"
                f"{' and others' if len(known) > NAMED else ''}: name one of those, or leave it out",
            )
    named = [name for name in wanted if name != EVERY_OTHER]
    others = [name for name in marks.names if name not in wanted] if EVERY_OTHER in wanted else []
    place = {name: at for at, name in enumerate([*named, *others])}
    rest = len(place)  # rows of no source, and of sources without a limit
    of_name = np.array([place.get(name, rest) for name in marks.names] + [rest], dtype=np.int64)
    most_of_others = wanted[EVERY_OTHER].max if EVERY_OTHER in wanted else 1.0
    limits = [
        *((wanted[name].min, wanted[name].max) for name in named),
        *((None, most_of_others) for _ in others),
        (None, most_of_others),
    ]
    return Shares(
        names=(*place, OTHERS),
        of_row=of_name[source],
        least=np.array([low or 0.0 for low, _ in limits]),
        most=np.array([1.0 if high is None else high for _, high in limits]),
    )


def impossible(field: str, message: str) -> JobError:
    """What a job fails with whose constraints can't be met."""
    return JobError("constraints-impossible", "The constraints can't be met", field, message)


def listed(names: list[str]) -> str:
    """Names of columns, for a message."""
    return ", ".join(repr(name) for name in names[:20])
