"""Jobs side by side: how good their subsets are, and how much of them is the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spice_client import jobs as job_operations
from spice_client import results
from spice_client.paths import JobLike, job_path
from spice_client.problems import Conflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spice_client.models import Job, JobResult
    from spice_client.steps import Steps


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the jobs.

    Attributes:
        job: The job.
        result: What it came to.
        overlap: Jaccard index of its rows with those of each job, itself included: 1 where they are the same.
    """

    job: Job
    result: JobResult
    overlap: list[float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several jobs.

    Attributes:
        jobs: Each of them, in the order asked for.
        same_rows: Whether all are of the same data; without that, an overlap says nothing.
        same_scale: Whether all measured with the same sketches and alpha; without that, log-dets are of different
            scales.
    """

    jobs: list[Compared]
    same_rows: bool
    same_scale: bool

    def document(self) -> dict[str, Any]:
        """The comparison as JSON: log-det in nats, overlaps as a matrix in the order of the jobs."""
        return {
            "jobs": [
                {
                    "id": str(one.job.id),
                    "name": one.job.name,
                    "method": one.job.selection.method,
                    "selected": one.result.selected,
                    "log_det": one.result.log_det,
                    "certificate": one.result.certificate.value,
                    "mean_conflict": one.result.mean_conflict,
                }
                for one in self.jobs
            ],
            "overlap": [one.overlap for one in self.jobs],
            "same_rows": self.same_rows,
            "same_scale": self.same_scale,
        }


def compare(jobs: Sequence[JobLike]) -> Steps[Comparison]:
    """Compare the subsets of jobs that succeeded.

    Args:
        jobs: The jobs, or their ids.

    Raises:
        Conflict: One of them has no result, or not yet.
    """
    looked = []
    picked: list[frozenset[int]] = []
    for one in jobs:
        job = yield from job_operations.get(one)
        if job.result is None:
            detail = f"job {job.id} ({job.state}) has no result: compare jobs that succeeded"
            raise Conflict(409, {"title": "The job has no result", "detail": detail, "instance": job_path(job)})
        looked.append((job, job.result))
        picked.append(frozenset((yield from results.subset(job)).indices))
    compared = [
        Compared(job, result, [_jaccard(own, other) for other in picked])
        for (job, result), own in zip(looked, picked, strict=True)
    ]
    return Comparison(
        compared,
        same_rows=len({result.fingerprint for _, result in looked}) <= 1,
        same_scale=len({(result.sketches, result.alpha) for _, result in looked}) <= 1,
    )


def _jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    union = len(one | other)
    return len(one & other) / union if union else 1.0
