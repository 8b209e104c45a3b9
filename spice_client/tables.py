"""A subset as lists, data frames, Arrow tables or datasets. Packages that not everybody has are loaded on demand."""

from __future__ import annotations

import csv
import importlib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spice_client.problems import PackageMissing

if TYPE_CHECKING:
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
    """

    job_id: str
    indices: list[int]
    marginal_gains: list[float]
    epsilons: list[float]
    conflicts: list[float]
    log_det: list[float]

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"Subset(job_id={self.job_id!r}, {len(self)} picks)"

    def columns(self) -> dict[str, list[Any]]:
        """Rank (from 0), index, marginal_gain, epsilon, conflict, log_det."""
        return {
            "rank": list(range(len(self))),
            "index": self.indices,
            "marginal_gain": self.marginal_gains,
            "epsilon": self.epsilons,
            "conflict": self.conflicts,
            "log_det": self.log_det,
        }

    def to_list(self) -> list[Row]:
        """A dictionary for each pick."""
        columns = self.columns()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@dataclass(frozen=True, slots=True, repr=False)
class Rows(Table):
    """The picked rows themselves, in the dataset's own columns and in the order of its file.

    Attributes:
        content: The file that the service keeps.
        format: Its format: jsonl, json, csv or parquet.
    """

    content: bytes
    format: str

    def __repr__(self) -> str:
        return f"Rows({len(self.content):,} bytes of {self.format})"

    def to_list(self) -> list[Row]:
        """A dictionary for each row.

        Raises:
            PackageMissing: The rows are Parquet, and pyarrow is not installed.
        """
        if self.format == "parquet":
            rows: list[Row] = self.to_arrow().to_pylist()
            return rows
        text = self.content.decode("utf-8-sig")
        if self.format == "csv":
            return list(csv.DictReader(io.StringIO(text, newline="")))
        if self.format == "json":
            return list(json.loads(text))
        return [json.loads(line) for line in text.split("\n") if line.strip()]

    def to_arrow(self) -> pa.Table:
        """An Arrow table; of Parquet, with its own schema.

        Raises:
            PackageMissing: pyarrow is not installed.
        """
        arrow = _package("pyarrow", "an Arrow table")
        if self.format == "parquet":
            return importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(self.content))
        return arrow.Table.from_pylist(self.to_list())


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
