"""Problem documents of failed jobs and datasets: one for each kind of failure, without stack traces."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.core.uris.datasets import UriRefused
from workers.data.errors import DatasetError
from workers.models.errors import ModelError, ModelTooLarge, SampleTooLarge
from workers.selection import BudgetError, ConfigError, ConstraintError

if TYPE_CHECKING:
    from app.core.db.tables import Json


class JobError(Exception):
    """A job has failed. The message is written for the owner of the job."""

    def __init__(self, kind: str, title: str, field: str, message: str) -> None:
        super().__init__(message)
        # The message goes on from the field's name, and the detail is read without the list of errors.
        detail = f"{field}: {message}" if "." in field else message
        self.problem = {**_problem(kind, title, message, field), "detail": detail}


class ProblemError(Exception):
    """A job has failed for a reason that another worker has stored."""

    def __init__(self, problem: Json) -> None:
        super().__init__(problem.get("detail", problem["title"]))
        self.problem = problem


class RequestNotUnderstood(Exception):
    """A newer release has stored the request, with fields or values that this one does not know."""


Contract = TypeVar("Contract", bound=BaseModel)


def understood(contract: type[Contract], stored: Json) -> Contract:
    """A stored request as this release reads it.

    Raises:
        RequestNotUnderstood: It can't. A worker that left out what it does not know would make another result.
    """
    try:
        return contract.model_validate(stored)
    except ValidationError as error:
        unknown = ", ".join(".".join(map(str, item["loc"])) for item in error.errors()[:5])
        raise RequestNotUnderstood(f"this release ({version('spice-select')}) does not understand {unknown}") from error


FIELD = re.compile(r"((?:model|gradients)\.[a-z_.]+): ")
INTERNAL_ERROR = "internal-error"
STORAGE_FAILED = "storage-failed"
UNFORESEEN = frozenset({INTERNAL_ERROR, STORAGE_FAILED})
"""Kinds of failure whose traceback is in the worker's log."""
KINDS: tuple[tuple[type[Exception], str, str, str | None], ...] = (
    (UriRefused, "uri-refused", "The URI may not be read", "dataset.uri"),
    (ModelTooLarge, "model-too-large", "The model does not fit into memory", "model.uri"),
    (ModelError, "model-unusable", "The model can't be used", "model.uri"),
    (SampleTooLarge, "out-of-memory", "A row does not fit into memory", "model.max_length"),
    (BudgetError, "selection-impossible", "The selection can't be made", "selection.budget"),
    (ConfigError, "selection-impossible", "The selection can't be made", "selection"),
    (OSError, STORAGE_FAILED, "The worker could not write or read a file", None),
)


CONSTRAINTS = {
    "tokens": ("selection.budget.tokens", "raise the token budget"),
    "sources": (
        "selection.constraints.sources",
        "change the shares or the budget; rows that selection.filters drops can't fill them",
    ),
    "include": (
        "selection.constraints.include",
        "name fewer rows, among which are the picks that extends keeps, or raise the budget or what a source may have",
    ),
    "budget": ("selection.budget", "lower the budget"),
}
"""Field and remedy of a constraint that no selection can meet."""


def problem_of(error: Exception) -> Json:
    """The problem document of the exception that stopped a job."""
    if isinstance(error, JobError | ProblemError):
        return error.problem
    if isinstance(error, ConstraintError):
        where, remedy = CONSTRAINTS[error.constraint]
        return _problem("constraints-impossible", "The constraints can't be met", f"{error}: {remedy}", where)
    if isinstance(error, DatasetError):
        kind = f"dataset-{error.reason_code.replace('_', '-')}"
        return _problem(kind, "The dataset can't be used", str(error), "dataset")
    for cls, kind, title, field in KINDS:
        if isinstance(error, cls):
            return _problem(kind, title, str(error), _named_field(str(error)) or field)
    detail = f"{type(error).__name__}: {error}"[:1000]
    return _problem(INTERNAL_ERROR, "The worker failed", f"{detail}. The worker's log has the whole of it.")


def _named_field(message: str) -> str | None:
    """The field that a message begins with, as in ``gradients.adapter: ...``."""
    match = FIELD.match(message)
    return None if match is None else match[1]


def _problem(kind: str, title: str, detail: str, field: str | None = None) -> dict[str, Any]:
    problem: dict[str, Any] = {"type": kind, "title": title, "detail": detail}
    if field is not None:
        problem["errors"] = [{"field": field, "message": detail}]
    return problem
