"""Where things are under the service's URL."""

from __future__ import annotations

from urllib.parse import quote
from uuid import UUID

from spice_client.models import Dataset, Job

JobLike = Job | UUID | str
"""A job, or its id."""
DatasetLike = Dataset | UUID | str
"""A registered dataset, or its id."""


def id_of(thing: JobLike | DatasetLike) -> str:
    """The id of a job or a dataset."""
    return str(thing.id if isinstance(thing, Job | Dataset) else thing)


def job_path(job: JobLike, *parts: str) -> str:
    """Path of a job, or of something of it."""
    return "/".join(["/jobs", quote(id_of(job), safe=""), *parts])


def dataset_path(dataset: DatasetLike) -> str:
    """Path of a registered dataset."""
    return f"/datasets/{quote(id_of(dataset), safe='')}"
