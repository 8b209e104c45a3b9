"""The operation: fetch what a job picked, write it for a trainer, and note where it came from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spice_client import jobs, results
from spice_client.downloads import FileNotWritable
from spice_client.exports.conversation import read
from spice_client.exports.files import write_json
from spice_client.exports.formats import FORMATS, ROW_WRITERS, SUFFIXES, ExportFormat, Written, write_indices
from spice_client.problems import SpiceError
from spice_rows.conversation import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spice_client.models import Job
    from spice_client.paths import JobLike
    from spice_client.steps import Steps
    from spice_client.tables import Subset

ORIGIN = ".spice.json"
WEIGHTS = ".weights.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ExportImpossible(SpiceError):
    """An export can't be written as it was asked for."""

    def __init__(self, detail: str) -> None:
        super().__init__({"title": "The export is not possible", "detail": detail})


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        files: The files, the one with the data first.
        rows: Rows in it.
        notes: What is worth knowing before training.
    """

    files: list[Path]
    rows: int
    notes: list[str]


def export(
    job: JobLike,
    format: ExportFormat,  # noqa: A002 - the name of the flag
    directory: Path | str,
    *,
    name: str = "train",
    columns: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Steps[Exported]:
    """Write a job's subset for a trainer.

    Beside the data a file `NAME.spice.json` says where it came from: job, dataset, model, settings, certificate. Of a
    method that gives weights `NAME.weights.json` has a list of them in the order of the data.

    Args:
        job: A job that succeeded.
        format: `trl`, `llama-factory`, `axolotl`, or `indices` for `datasets.Dataset.select`.
        directory: Where to write; made if it is not there.
        name: Of the data file and of the dataset in the trainer's configuration.
        columns: Role to column name, instead of what the job read.
        overwrite: Also over files of this name that are not this job's own export.

    Raises:
        Conflict: The job has no result, or not yet.
        ExportImpossible: The name is none, nothing says which columns to read, or something else is there already.
        RowNotReadable: A row does not hold what the columns say.
        FileNotWritable: A file cannot be written.
    """
    if format not in FORMATS:
        raise ExportImpossible(f"there is no format {format!r}; there are {', '.join(FORMATS)}")
    if not NAME.fullmatch(name):
        raise ExportImpossible(f"the name {name!r} must be letters, digits, '.', '_' and '-', 100 at most")
    found = yield from jobs.get(job)
    if not overwrite:
        _refuse_to_replace(found, format, Path(directory), name)
    if format == "indices":
        picks = yield from results.subset(found)
        indices, weights = picks.indices, picks.weights
        return _written(
            found, Path(directory), name, len(indices), lambda at: write_indices(at, name, indices), weights
        )
    table = yield from results.rows(found, order="file")
    names = dict(columns) if columns is not None else _columns(found)
    rows = table.to_list(set(names.values()))
    said = [read(row, names, _wanted(found)) for row in rows]
    weights = _in_file_order(table.picks)
    return _written(found, Path(directory), name, len(rows), lambda at: ROW_WRITERS[format](at, name, said), weights)


def _in_file_order(picks: Subset) -> list[float] | None:
    """The weights of picks in the order of their rows in the file, which is that of an export."""
    if picks.weights is None:
        return None
    return [weight for _, weight in sorted(zip(picks.indices, picks.weights, strict=True))]


def _refuse_to_replace(job: Job, format: ExportFormat, directory: Path, name: str) -> None:  # noqa: A002 - as above
    """An export may be written again where the same job's lies; anything else there is somebody's.

    Raises:
        ExportImpossible: Something else is there.
    """
    there = [path for path in (directory / f"{name}{suffix}" for suffix in SUFFIXES[format]) if path.exists()]
    if there and _exported_job(directory / f"{name}{ORIGIN}") != str(job.id):
        raise ExportImpossible(
            f"{there[0]} is there already, and is no export of job {job.id}: give another name or directory, "
            "or overwrite"
        )


def _exported_job(origin: Path) -> str | None:
    try:
        known: dict[str, Any] = json.loads(origin.read_text(encoding="utf-8"))
        return str(known["job"]["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _wanted(job: Job) -> Wanted:
    """What the job learned of its rows."""
    return Wanted(job.dataset.train_on, job.dataset.preference)  # type: ignore[arg-type]  # the service's own words


def _written(
    job: Job,
    directory: Path,
    name: str,
    count: int,
    write: Callable[[Path], Written],
    weights: list[float] | None,
) -> Exported:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        written = write(directory)
        if weights is not None:
            beside = directory / f"{name}{WEIGHTS}"
            write_json(beside, weights)
            written = Written(
                [*written.files, beside],
                [*written.notes, f"{beside.name} has the weight of each row in its order: trainers need it told apart"],
            )
        origin = directory / f"{name}{ORIGIN}"
        write_json(origin, _origin(job))
    except OSError as error:
        raise FileNotWritable(directory, error) from None
    return Exported([*written.files, origin], count, written.notes)


def _columns(job: Job) -> dict[str, str]:
    known = (job.result.columns if job.result else None) or job.dataset.columns
    if known is None:
        raise ExportImpossible(f"job {job.id} does not say which columns it read: give them, as in prompt=question")
    return {role: column for role, column in known.document().items() if column is not None}


def _origin(job: Job) -> dict[str, Any]:
    document = job.document()
    kept = ("id", "name", "metadata", "dataset", "model", "gradients", "selection", "created_at", "finished_at")
    result = document.get("result") or {}
    about = ("rows_total", "selected", "log_det", "certificate", "fingerprint", "model_revision", "versions")
    return {
        "job": {key: document[key] for key in kept if key in document},
        "result": {key: result[key] for key in about if key in result},
    }
