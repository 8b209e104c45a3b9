"""A subset as lists, data frames, Arrow tables or datasets. Packages that not everybody has are loaded on demand."""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from spice_client.notebook import curves_html
from spice_client.problems import PackageMissing, SpiceError
from spice_client.words import certificate_words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import ModuleType

    import datasets
    import pandas as pd
    import pyarrow as pa

Row = dict[str, Any]
MEDIA_TYPES = {
    "application/x-ndjson": "jsonl",
    "application/json": "json",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
}


class Table:
    """Rows of named columns."""

    def to_list(self) -> list[Row]:
        """A dictionary for each row."""
        raise NotImplementedError

    def columns(self) -> dict[str, list[Any]]:
        """A list for each column; what a row lacks is None."""
        rows = self.to_list()
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}

    def to_pandas(self) -> pd.DataFrame:
        """A data frame.

        Raises:
            PackageMissing: pandas is not installed.
        """
        frame: pd.DataFrame = _package("pandas", "a data frame").DataFrame(self.columns())
        return frame

    def to_arrow(self) -> pa.Table:
        """An Arrow table.

        Raises:
            PackageMissing: pyarrow is not installed.
        """
        return _package("pyarrow", "an Arrow table").table(self.columns())

    def to_dataset(self) -> datasets.Dataset:
        """A dataset of the library `datasets`, as trainers take it.

        Raises:
            PackageMissing: datasets is not installed.
        """
        return _package("datasets", "a Dataset").Dataset.from_dict(self.columns())


@dataclass(frozen=True, slots=True, repr=False)
class Subset(Table):
    """The picks of a job, in the order of picking.

    Attributes:
        job_id: The job.
        indices: Row numbers in the dataset, from 0: what `datasets.Dataset.select` takes.
        marginal_gains: What each added, in nats.
        epsilons: What each lost to overlap with those before it, in nats; at most 0.
        conflicts: Of each with those before it, in [0, 1].
        log_det: Information of all picks up to each, in nats.
        certificate: The proven lower bound on F(S)/F(S*), where the subset was asked for by a job that has it.
        stability: Share of the reselections that pick each, None for one that was a candidate of none; None for a job
            that asked for none.
        weights: What each stands for; None by methods that give no weights.
    """

    job_id: str
    indices: list[int]
    marginal_gains: list[float]
    epsilons: list[float]
    conflicts: list[float]
    log_det: list[float]
    certificate: float | None = None
    stability: list[float | None] | None = None
    weights: list[float] | None = None

    def _repr_html_(self) -> str:
        caption = f"certificate {certificate_words(self.certificate)}" if self.certificate else ""
        picks = {"picks": (range(1, len(self) + 1), self.log_det)}
        return curves_html(f"{len(self):,} picks of job {self.job_id}", picks, caption)

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"Subset(job_id={self.job_id!r}, {len(self)} picks)"

    def columns(self) -> dict[str, list[Any]]:
        """Rank (from 0), index, marginal_gain, epsilon, conflict, log_det; stability and weight where there are any."""
        columns: dict[str, list[Any]] = {
            "rank": list(range(len(self))),
            "index": self.indices,
            "marginal_gain": self.marginal_gains,
            "epsilon": self.epsilons,
            "conflict": self.conflicts,
            "log_det": self.log_det,
        }
        further = {"stability": self.stability, "weight": self.weights}
        return columns | {name: values for name, values in further.items() if values is not None}

    def to_list(self) -> list[Row]:
        """A dictionary for each pick."""
        columns = self.columns()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@dataclass(frozen=True, slots=True)
class Picked:
    """A picked row with its place among the picks.

    Attributes:
        rank: From 0, in the order of picking.
        index: Row number in the dataset, from 0.
        marginal_gain: What it added, in nats.
        row: The row itself.
    """

    rank: int
    index: int
    marginal_gain: float
    row: Row


RowOrder = Literal["rank", "file"]


@dataclass(frozen=True, slots=True, repr=False)
class Rows(Table):
    """The picked rows themselves, in the dataset's own columns. Iterated, each comes with its rank, index and gain.

    Attributes:
        content: The file that the service keeps, whose rows are in the order of the dataset.
        format: Its format: jsonl, json, csv or parquet.
        picks: The picks that the rows are of.
        order: Of the rows in whatever they are turned into: `rank`, that of picking and of `subset`, or `file`, that of
            the dataset.
    """

    content: bytes
    format: str
    picks: Subset
    order: RowOrder = "rank"

    def __len__(self) -> int:
        return len(self.picks)

    def __repr__(self) -> str:
        return f"Rows({len(self)} rows of {self.format}, order={self.order!r})"

    def __iter__(self) -> Iterator[Picked]:
        for rank, row in zip(self.ranks, self.to_list(), strict=True):
            yield Picked(rank, self.picks.indices[rank], self.picks.marginal_gains[rank], row)

    @property
    def ranks(self) -> list[int]:
        """Of each row, from 0, in the order of the rows."""
        if self.order == "rank":
            return list(range(len(self.picks)))
        return sorted(range(len(self.picks)), key=self.picks.indices.__getitem__)

    def _places(self) -> list[int]:
        """Where in the file each row is, in the order of the rows."""
        places = {index: place for place, index in enumerate(sorted(self.picks.indices))}
        return [places[self.picks.indices[rank]] for rank in self.ranks]

    def to_list(self, columns: Collection[str] | None = None) -> list[Row]:
        """A dictionary for each row.

        Args:
            columns: Those that are wanted of Parquet, so that another column's values need not be readable.

        Raises:
            PackageMissing: The rows are Parquet, and pyarrow is not installed.
            ColumnNotReadable: A column of Parquet holds what Python has no value for.
        """
        if self.format == "parquet":
            return _rows_of(self.to_arrow(), columns)
        rows = self._of_file()
        return [rows[place] for place in self._places()]

    def _of_file(self) -> list[Row]:
        text = self.content.decode("utf-8-sig")
        if self.format == "csv":
            return _csv_rows(text)
        values = (
            json.loads(text)
            if self.format == "json"
            else [json.loads(line) for line in text.split("\n") if line.strip()]
        )
        # A row may be the turns of a conversation alone.
        return [value if isinstance(value, dict) else {"messages": value} for value in values]

    def to_arrow(self) -> pa.Table:
        """An Arrow table; of Parquet, with its own schema, of other formats with the names of all rows.

        A column whose values are of several types holds them as JSON text.

        Raises:
            PackageMissing: pyarrow is not installed.
        """
        arrow = _package("pyarrow", "an Arrow table")
        if self.format == "parquet":
            table = importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(self.content))
            return table if self.order == "file" else table.take(self._places())
        return arrow.table({name: _arrow_values(arrow, values) for name, values in self.columns().items()})

    def to_pandas(self) -> pd.DataFrame:
        """A data frame.

        Raises:
            PackageMissing: pandas, or for Parquet pyarrow, is not installed.
        """
        frames = _package("pandas", "a data frame")
        frame: pd.DataFrame = (
            self.to_arrow().to_pandas() if self.format == "parquet" else frames.DataFrame(self.columns())
        )
        return frame

    def to_dataset(self) -> datasets.Dataset:
        """A dataset of the library `datasets`; of Parquet, with the features that its schema tells.

        Raises:
            PackageMissing: datasets is not installed.
        """
        library = _package("datasets", "a Dataset")
        table = self.to_arrow()
        return library.Dataset(table) if table.schema.metadata else library.Dataset(library.table.InMemoryTable(table))


class ColumnNotReadable(SpiceError):
    """A column of the rows holds what Python has no value for."""

    def __init__(self, name: str, kind: object, cause: Exception) -> None:
        first = (str(cause).splitlines() or [type(cause).__name__])[0]
        detail = (
            f"column {name!r} of type {kind} has values that cannot be read ({first}): leave it out, or use to_arrow()"
        )
        super().__init__({"title": "A column cannot be read", "detail": detail})


def _rows_of(table: pa.Table, columns: Collection[str] | None) -> list[Row]:
    names = [name for name in table.column_names if columns is None or name in columns]
    lists: dict[str, list[Any]] = {}
    for name in names:
        column = table.column(name)
        try:
            lists[name] = [_without_nulls(value) for value in column.to_pylist()]
        except (ValueError, OverflowError, ArithmeticError) as error:
            raise ColumnNotReadable(name, column.type, error) from None
    return [dict(zip(names, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - any Python value
    """A struct without its null fields: Parquet has no other way to say that a row lacks a field."""
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _csv_rows(text: str) -> list[Row]:
    """The rows of CSV, whichever of comma, semicolon and tab its header has most of, and however long a cell is."""
    header = re.sub(r'"(?:[^"]|"")*"', "", text.lstrip("\r\n").partition("\n")[0])
    delimiter = max(",;\t", key=lambda character: (header.count(character), character == ","))
    limit = csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    finally:
        csv.field_size_limit(limit)


def _arrow_values(arrow: ModuleType, values: list[Any]) -> Any:  # noqa: ANN401 - an Arrow array
    try:
        return arrow.array(values)
    except (arrow.ArrowInvalid, arrow.ArrowTypeError):
        return arrow.array([None if value is None else json.dumps(value, ensure_ascii=False) for value in values])


def format_of(media_type: str) -> str:
    """The format of rows that come with a media type."""
    return MEDIA_TYPES.get(media_type.partition(";")[0].strip(), "jsonl")


def _package(name: str, purpose: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise PackageMissing(name, purpose) from None
