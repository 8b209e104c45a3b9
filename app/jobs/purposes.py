"""What is wrong with a request's datasets and constraints, as far as the service can tell without reading the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.contracts.job_request import SOURCE_COLUMNS, RowsByColumn
from app.core.db.tables import State
from app.core.uris.datasets import UriRefused, check_uri
from app.datasets.service import find_dataset
from app.http.problems import FieldError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from app.core.contracts.job_request import DatasetRef, JobRequest, SelectionSpec
    from app.core.settings import Settings


def uri_errors(settings: Settings, dataset: DatasetRef, field: str) -> list[FieldError]:
    """Which URIs of a dataset this service does not read.

    Args:
        settings: Which it reads.
        dataset: As a request names it.
        field: Where the request does.
    """
    errors = []
    for place, uri in enumerate(dataset.uris or (() if dataset.uri is None else (dataset.uri,))):
        try:
            check_uri(uri, settings, dataset.format)
        except UriRefused as refused:
            path = f"{field}.uri" if dataset.uris is None else f"{field}.uris.{place}"
            errors.append(FieldError(field=path, message=str(refused)))
    return errors


def column_errors(dataset: DatasetRef, present: Sequence[str], field: str) -> list[FieldError]:
    """Which columns a dataset is said to have and has not.

    Args:
        dataset: As a request names it.
        present: Its columns.
        field: Where the request names it.
    """
    named = {} if dataset.columns is None else dataset.columns.model_dump(exclude_none=True)
    wanted = {f"{field}.columns.{role}": column for role, column in named.items()}
    if dataset.source_column is not None:
        wanted[f"{field}.source_column"] = dataset.source_column
    return [_no_column(path, column, present) for path, column in wanted.items() if column not in present]


def errors(session: Session, settings: Settings, spec: SelectionSpec) -> list[FieldError]:
    """What is wrong with the target of a selection, and with what it protects.

    Raises:
        DatasetNotFound: One of them is a registered dataset that is not there.
    """
    found = []
    for role, purpose in (("target", spec.target), ("protect", spec.protect)):
        if purpose is None:
            continue
        field = f"selection.{role}.dataset"
        found += uri_errors(settings, purpose.dataset, field)
        if purpose.dataset.id is None:
            continue
        dataset = find_dataset(session, purpose.dataset.id)
        if dataset.state in (State.FAILED, State.CANCELLED):
            said = f"could not be read: see GET /datasets/{dataset.id}"
            found.append(FieldError(field=f"{field}.id", message=said))
        if dataset.rows == 0:
            found.append(FieldError(field=f"{field}.id", message="has no rows: give a dataset with 1 or more"))
        if dataset.columns is not None:
            found += column_errors(purpose.dataset, dataset.columns, field)
            if purpose.group_column is not None and purpose.group_column not in dataset.columns:
                path = f"selection.{role}.group_column"
                found.append(_no_column(path, purpose.group_column, dataset.columns))
    return found + _evaluation_errors(session, settings, spec)


def _evaluation_errors(session: Session, settings: Settings, spec: SelectionSpec) -> list[FieldError]:
    """What is wrong with the evaluation set that rows are held against."""
    asked = None if spec.constraints is None else spec.constraints.decontaminate
    if asked is None:
        return []
    field = "selection.constraints.decontaminate.dataset"
    found = uri_errors(settings, asked.dataset, field)
    if asked.dataset.id is not None:
        dataset = find_dataset(session, asked.dataset.id)
        if dataset.rows == 0:
            found.append(FieldError(field=f"{field}.id", message="has no rows: give a dataset with 1 or more"))
        if dataset.columns is not None:
            found += column_errors(asked.dataset, dataset.columns, field)
    return found


def constraint_errors(request: JobRequest, rows: int | None, columns: Sequence[str] | None) -> list[FieldError]:
    """Which constraints can't be met by a dataset.

    Args:
        request: The job's.
        rows: Of its registered dataset, or None where they were not counted yet.
        columns: Likewise.
    """
    asked, found = request.selection.constraints, []
    if asked is None:
        return []
    for name, marked in (("include", asked.include), ("exclude", asked.exclude)):
        field = f"selection.constraints.{name}"
        if isinstance(marked, RowsByColumn):
            if columns is not None and marked.column not in columns:
                found.append(_no_column(f"{field}.column", marked.column, columns))
        elif marked and rows is not None and max(marked) >= rows:
            said = f"names row {max(marked)}, and the dataset has {rows} rows, numbered from 0: leave it out"
            found.append(FieldError(field=field, message=said))
    unnamed = asked.sources and columns is not None and request.dataset.source_column is None
    if unnamed and columns is not None and not set(SOURCE_COLUMNS) & set(columns):
        said = (
            f"needs a column of sources, and the dataset has none of {', '.join(SOURCE_COLUMNS)} (it has "
            f"{', '.join(columns)}): name the column with dataset.source_column"
        )
        found.append(FieldError(field="selection.constraints.sources", message=said))
    return found + _too_many_left_out(request, rows)


def _too_many_left_out(request: JobRequest, rows: int | None) -> list[FieldError]:
    asked, count = request.selection.constraints, request.selection.budget.count
    if asked is None or rows is None or count is None or not isinstance(asked.exclude, tuple):
        return []
    left = rows - len(asked.exclude)
    if left >= count:
        return []
    said = f"leaves {left} of {rows} rows, fewer than selection.budget.count {count}: exclude fewer, or ask for fewer"
    return [FieldError(field="selection.constraints.exclude", message=said)]


def _no_column(field: str, column: str, present: Sequence[str]) -> FieldError:
    return FieldError(field=field, message=f"names {column!r}, but the columns are {', '.join(present)}")
