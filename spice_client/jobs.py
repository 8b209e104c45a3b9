"""Operations on jobs: submit, look, list, cancel, delete, change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from spice_client.models import Job, Page, State
from spice_client.paths import JobLike, job_path
from spice_client.sources import request_of
from spice_client.steps import Ask, Steps, ask, ask_for, new_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from spice_client.requests import JobOptions, JobRequest, SelectionOptions
    from spice_client.sources import NamedBudget, NamedDataset, NamedModel

JOBS = "/jobs"


class _Unchanged:
    """The default of a field that an update leaves as it is; None would delete the field."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Any = _Unchanged()


def submit(
    request: JobRequest | None = None,
    *,
    dataset: NamedDataset | None = None,
    model: NamedModel | None = None,
    budget: NamedBudget | None = None,
    selection: SelectionOptions | None = None,
    idempotency_key: str | None = None,
    **options: Unpack[JobOptions],
) -> Steps[Job]:
    """Submit a selection job: a request as the API takes it, or one in keyword arguments.

    Args:
        request: The body of `POST /jobs`. What is given beside it takes the place of what it says.
        dataset: URI, path on this machine (wildcards allowed), id of a registered dataset, or what the API takes.
        model: URI or path on this machine of the model that scores, or what the API takes.
        budget: Rows to pick: 500, 0.1, "10%", or what the API takes.
        selection: How to pick: method, conflict penalty and so on.
        idempotency_key: Names this submission: sent twice, also by two processes, it makes one job. Left out, one is
            made up, so that a retry after a broken connection can't double the job.
        options: Further fields of the request: `gradients`, `name`, `metadata` and so on.

    Returns:
        The queued job.

    Raises:
        InvalidRequest: A field is wrong; `errors` names it.
        NothingThere: A path leads to nothing on this machine.
        BudgetNotReadable: The budget is none.
        IdempotencyKeyInvalid: A header can't carry it.
    """
    named = {"dataset": dataset, "model": model, "selection": selection, "budget": budget}
    body = request_of({**(request or {}), **{key: one for key, one in named.items() if one is not None}, **options})
    return ask_for(Job, Ask("POST", JOBS, json=body, headers=new_key(idempotency_key)))


def get(job: JobLike) -> Steps[Job]:
    """Look at a job.

    Raises:
        NotFound: There is none with this id.
    """
    return ask_for(Job, Ask("GET", job_path(job)))


def page(cursor: str | None, filters: Filters) -> Steps[Page[Job]]:
    """A page of the list of jobs, newest first."""
    return ask_for(Page[Job], Ask("GET", JOBS, params={**query_of(filters), "cursor": cursor}))


def cancel(job: JobLike) -> Steps[Job]:
    """Cancel a job that has not ended. A running one stops within seconds.

    Raises:
        Conflict: It has ended.
    """
    return ask_for(Job, Ask("POST", job_path(job, "cancel"), headers=new_key()))


def delete(job: JobLike) -> Steps[None]:
    """Delete a job that has ended, with its subset.

    Raises:
        Conflict: It has not ended: cancel it first.
    """
    yield from ask(Ask("DELETE", job_path(job)))


def update(
    job: JobLike,
    *,
    name: str | None = UNCHANGED,
    metadata: Mapping[str, str | None] | None = UNCHANGED,
    expires_at: datetime | str | None = UNCHANGED,
) -> Steps[Job]:
    """Change what a job is called, what is noted about it, or when it is deleted; what is left out stays.

    Raises:
        InvalidRequest: A field is wrong.
    """
    given = {"name": name, "metadata": metadata, "expires_at": expires_at}
    changes = {key: value for key, value in given.items() if value is not UNCHANGED}
    if expires_at is not UNCHANGED and expires_at is not None and not isinstance(expires_at, str):
        changes["expires_at"] = expires_at.isoformat()
    return ask_for(Job, Ask("PATCH", job_path(job), json=changes))


class Filters(TypedDict, total=False):
    """Which jobs of a list; all that is given must hold.

    `id_prefix` is how the id begins, `name_prefix` how the name begins, `metadata` entries that a job has,
    `dataset_uri` the data it selects from, and `page_size` how many jobs one request brings.
    """

    state: State | None
    id_prefix: str | None
    name: str | None
    name_prefix: str | None
    metadata: Mapping[str, str]
    dataset_uri: str | None
    page_size: int | None


def query_of(filters: Filters) -> dict[str, Any]:
    """The query of a list of jobs."""
    entries = {f"metadata.{key}": value for key, value in filters.get("metadata", {}).items()}
    named = {name: value for name, value in filters.items() if name not in ("metadata", "page_size")}
    return {**named, **entries, "limit": filters.get("page_size")}
