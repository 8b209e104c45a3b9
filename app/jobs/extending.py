"""Whether a job can keep the picks of another, as far as the service can tell without reading the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.core.db.tables import Job, State
from app.http.problems import FieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from app.core.contracts.job_request import JobRequest

ALIKE = ("model.uri", "model.max_length", "model.chat_template", "dataset.train_on", "dataset.preference")
"""What decides which tokens the model reads of a row, and so whether rows of two jobs can be told to be the same."""


def errors(session: Session, request: JobRequest) -> list[FieldError]:
    """What keeps a request from extending the job that it names; nothing where it names none."""
    if request.extends is None:
        return []
    earlier = session.get(Job, request.extends)
    if earlier is None:
        said = f"is {request.extends}, and the project has no such job: name one of its jobs that has succeeded"
        return [FieldError(field="extends", message=said)]
    if earlier.state is not State.SUCCEEDED:
        remedy = "name one that has succeeded" if earlier.state.final else "wait until it has succeeded"
        said = f"is job {earlier.id}, which is {earlier.state} and has no picks to keep: {remedy}"
        return [FieldError(field="extends", message=said)]
    given = request.model_dump(mode="json")
    return [
        FieldError(
            field=path,
            message=f"is {_at(given, path)!r}, and {_at(earlier.request, path)!r} in job {earlier.id}, which extends "
            "names, so that its rows could not be told among this job's: use that value, or leave extends out",
        )
        for path in ALIKE
        if _at(given, path) != _at(earlier.request, path)
    ]


def _at(request: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - any JSON value
    section, name = path.split(".")
    return request.get(section, {}).get(name)
