"""What is wrong with a request's datasets and constraints, as far as the service can tell without reading the data."""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

from app.core.contracts.constraints_request import EVERY_OTHER, RowsByColumn
from app.core.contracts.dataset_request import SOURCE_COLUMNS
from app.core.db.scoping import project_of
from app.core.db.tables import State
from app.core.lifecycle import shortest_rows
from app.core.uris.datasets import UriRefused, check_uri
from app.datasets.service import find_dataset
from app.http.problems import FieldError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.orm import Session

    from app.core.contracts.constraints_request import Share
    from app.core.contracts.dataset_request import DatasetRef
    from app.core.contracts.job_request import JobRequest
    from app.core.contracts.selection_request import SelectionSpec
    from app.core.db.tables import Dataset
    from app.core.settings import Settings


NAMED = 10
"""Sources that a message names."""
DECIMALS = 6
"""That a share of some rows is rounded to, as the selector does."""


def uri_errors(session: Session, settings: Settings, dataset: DatasetRef, field: str) -> list[FieldError]:
    """Which URIs of a dataset this service does not read.

    Args:
        session: Of the project that asks.
        settings: Which it reads.
        dataset: As a request names it.
        field: Where the request does.
    """
    errors = []
    for place, uri in enumerate(dataset.uris or (() if dataset.uri is None else (dataset.uri,))):
        try:
            check_uri(uri, settings, dataset.format, project_of(session))
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
        found += uri_errors(session, settings, purpose.dataset, field)
        if purpose.dataset.id is None:
            continue
        dataset = find_dataset(session, purpose.dataset.id)
        found += _unread_errors(dataset, field)
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
    found = uri_errors(session, settings, asked.dataset, field)
    if asked.dataset.id is not None:
        dataset = find_dataset(session, asked.dataset.id)
        found += _unread_errors(dataset, field)
        if dataset.columns is not None:
            found += column_errors(asked.dataset, dataset.columns, field)
    return found


def _unread_errors(dataset: Dataset, field: str) -> list[FieldError]:
    """What is wrong with a registered dataset that could not be read; one without rows is among those."""
    if dataset.state not in (State.FAILED, State.CANCELLED):
        return []
    reason = "" if dataset.error is None else f" ({dataset.error.get('detail') or dataset.error.get('title')})"
    return [FieldError(field=f"{field}.id", message=f"could not be read{reason}: see GET /datasets/{dataset.id}")]


def constraint_errors(request: JobRequest, dataset: Dataset) -> list[FieldError]:
    """Which constraints can't be met by a registered dataset, as far as it was read yet."""
    asked, rows, columns, found = request.selection.constraints, dataset.rows, dataset.columns, []
    if asked is None:
        return []
    for name, marked in (("include", asked.include), ("exclude", asked.exclude)):
        field = f"selection.constraints.{name}"
        if isinstance(marked, RowsByColumn):
            if columns is not None and marked.column not in columns:
                found.append(_no_column(f"{field}.column", marked.column, columns))
        elif marked and rows is not None and max(marked) >= rows:
            message = f"names row {max(marked)}, and the dataset has {rows} rows, numbered from 0: leave it out"
            found.append(FieldError(field=field, message=message))
    unnamed = asked.sources and columns is not None and request.dataset.source_column is None
    if unnamed and columns is not None and not set(SOURCE_COLUMNS) & set(columns):
        message = (
            f"needs a column of sources, and the dataset has none of {', '.join(SOURCE_COLUMNS)} (it has "
            f"{', '.join(columns)}): name the column with dataset.source_column"
        )
        found.append(FieldError(field="selection.constraints.sources", message=message))
    return found + _too_many_left_out(request, rows) + _source_errors(request, dataset)


def token_errors(request: JobRequest, dataset: Dataset) -> list[FieldError]:
    """A token budget below the shortest row of a registered dataset that was read before with the request's model.

    An estimate is not held against this: its worker reads the dataset, also where the model is another one by now.
    """
    budget, shortest = request.selection.budget.tokens, shortest_rows.known(dataset, request)
    if budget is None or shortest is None or budget >= shortest or request.extends is not None:
        return []
    message = (
        f"the token budget is {budget}, the shortest row has {shortest} tokens, as it was read before with "
        f"{request.model.uri}: raise the token budget; if the model there is another one by now, ask POST /estimates, "
        "which reads the rows anew"
    )
    return [FieldError(field="selection.budget.tokens", message=message)]


def _source_errors(request: JobRequest, dataset: Dataset) -> list[FieldError]:
    """Which sources are not there, or too small or too large for their shares."""
    asked = request.selection.constraints
    usual = [one for one in SOURCE_COLUMNS if one in (dataset.columns or ())]
    column = request.dataset.source_column or next(iter(usual), "")
    counts = (dataset.sources or {}).get(column)
    if asked is None or not asked.sources or counts is None:
        return []
    most_common = sorted(counts, key=counts.__getitem__, reverse=True)
    there = ", ".join(f"{name!r} ({counts[name]})" for name in most_common[:NAMED])
    more = " and others" if len(counts) > NAMED else ""
    absent = [
        FieldError(
            field=f"selection.constraints.sources.{name}",
            message=f"no row has {name!r} in column {column!r}; the sources there are {there}{more}: name one of "
            "those, or leave it out",
        )
        for name in asked.sources
        if name != EVERY_OTHER and name not in counts
    ]
    # Beside picks that are kept the shares are of all picks, and the budget of those that are added.
    budget = None if request.extends is not None else request.selection.budget.count
    return absent if absent or budget is None else _share_errors(asked.sources, counts, budget, dataset.rows or 0)


def _share_errors(shares: Mapping[str, Share], counts: Mapping[str, int], budget: int, rows: int) -> list[FieldError]:
    """Whose shares of so many picks the rows there can't meet.

    Args:
        shares: By source.
        counts: Rows of each source.
        budget: Rows to pick.
        rows: Rows of the dataset, those of no source included.
    """
    found, most = [], 0
    nameless = {EVERY_OTHER: rows - sum(counts.values())}
    for name, count in {**counts, **nameless}.items():
        share = shares.get(name, shares.get(EVERY_OTHER))
        least = ceil(round(budget * (0.0 if share is None else share.min or 0.0), DECIMALS))
        largest = 1.0 if share is None or share.max is None else share.max
        most += min(count, floor(round(budget * largest, DECIMALS)))
        if count < least:
            found.append(
                FieldError(
                    field=f"selection.constraints.sources.{name}.min",
                    message=f"asks for {least} rows of {budget}, and the dataset has {count}: lower it, or the budget",
                )
            )
    if not found and most < budget:
        message = f"allow {most} rows together, and selection.budget.count is {budget}: raise a max, or ask for fewer"
        found.append(FieldError(field="selection.constraints.sources", message=message))
    return found


def _too_many_left_out(request: JobRequest, rows: int | None) -> list[FieldError]:
    asked, count = request.selection.constraints, request.selection.budget.count
    if asked is None or rows is None or count is None or not isinstance(asked.exclude, tuple):
        return []
    left = rows - len(asked.exclude)
    if left >= count:
        return []
    message = (
        f"leaves {left} of {rows} rows, fewer than selection.budget.count {count}: exclude fewer, or ask for fewer"
    )
    return [FieldError(field="selection.constraints.exclude", message=message)]


def _no_column(field: str, column: str, present: Sequence[str]) -> FieldError:
    message = f"the dataset has no column {column!r}; it has {', '.join(present)}: name one of these"
    return FieldError(field=field, message=message)
