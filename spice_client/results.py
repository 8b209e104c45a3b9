"""Operations on what a job came to: its subset, its rows, its curve, its conflicts, its report."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Literal, get_args

from spice_client.downloads import Downloaded, receive
from spice_client.downloads import download as download_file
from spice_client.models import Answer, Conflicts, Curve, Job, League, RejectedRows, SubsetChanges, Suspects
from spice_client.paths import JobLike, id_of, job_path
from spice_client.steps import Ask, Steps, ask_for
from spice_client.tables import RowOrder, Rows, Subset, format_of

SubsetFormat = Literal["json", "ndjson", "csv", "parquet"]
Output = Path | str | IO[bytes] | None


class Picks(Answer):
    """`GET /jobs/{id}/subset` as JSON."""

    indices: list[int]
    marginal_gains: list[float]
    epsilons: list[float]
    conflicts: list[float]
    log_det: list[float]
    stability: list[float | None] | None = None
    weights: list[float] | None = None


def subset(job: JobLike) -> Steps[Subset]:
    """The picks of a job that succeeded.

    Raises:
        Conflict: The job has no result, or not yet.
    """
    picks = yield from ask_for(Picks, Ask("GET", job_path(job, "subset"), params={"format": "json"}))
    proven = job.result.certificate.value if isinstance(job, Job) and job.result else None
    return Subset(
        id_of(job),
        picks.indices,
        picks.marginal_gains,
        picks.epsilons,
        picks.conflicts,
        picks.log_det,
        proven,
        picks.stability,
        picks.weights,
    )


def changes(job: JobLike, *, since: JobLike) -> Steps[SubsetChanges]:
    """What was added to a job's subset, and removed from it, since that of another job; over another dataset, perhaps.

    Raises:
        Conflict: One of the jobs has no result, or not yet.
        NotFound: Which rows a job picked is not kept any more.
    """
    return ask_for(SubsetChanges, Ask("GET", job_path(job, "subset"), params={"since": id_of(since)}))


def rows(job: JobLike, *, order: RowOrder = "rank") -> Steps[Rows]:
    """The picked rows themselves, in memory. For many, `download` them with `rows=True`.

    Args:
        job: The job.
        order: `rank`, as they were picked and as `subset` has them, or `file`, as they are in the dataset.

    Raises:
        Conflict: The job has no result, or not yet.
        NotFound: The rows are not kept any more.
        ValueError: There is no such order.
    """
    if order not in get_args(RowOrder):
        raise ValueError(f"order {order!r}: give 'rank' or 'file'")
    content = io.BytesIO()
    body = yield from receive(Ask("GET", job_path(job, "subset"), params={"rows": "true"}), content)
    picks = yield from subset(job)
    return Rows(content.getvalue(), format_of(body.headers.get("content-type", "")), picks, order)


def download(
    job: JobLike,
    output: Output = None,
    *,
    rows: bool = False,
    format: SubsetFormat | None = None,  # noqa: A002 - the name in the API
) -> Steps[Downloaded]:
    """Stream a job's subset into a file. A connection that breaks is taken up again; the file appears when it is whole.

    Args:
        job: The job.
        output: The file, replaced if there; or an open binary file; None takes the service's name for it.
        rows: The picked rows themselves, in the dataset's own format, instead of the picks.
        format: Of the picks; JSON if left out.

    Raises:
        Conflict: The job has no result, or not yet.
        FileNotWritable: The file cannot be written.
    """
    params = {"rows": "true"} if rows else {"format": format}
    return download_file(Ask("GET", job_path(job, "subset"), params=params), output, f"subset-{id_of(job)}")


def report(job: JobLike, output: Output = None) -> Steps[Downloaded]:
    """Save a job's report: one HTML file with the figures, the settings and the certificate, to attach to a run.

    Args:
        job: The job.
        output: As for `download`.

    Raises:
        Conflict: The job has no result, or not yet.
    """
    request = Ask("GET", job_path(job, "report"), headers={"Accept": "text/html"})
    return download_file(request, output, f"report-{id_of(job)}.html")


def curve(job: JobLike, *, points: int | None = None) -> Steps[Curve]:
    """Log-det and marginal gain against the number of picks, with those of the baselines.

    Args:
        job: The job.
        points: At most this many points of each line.
    """
    return ask_for(Curve, Ask("GET", job_path(job, "curve"), params={"points": points}))


def conflicts(job: JobLike) -> Steps[Conflicts]:
    """How much the picks' gradients pull against those picked before them."""
    return ask_for(Conflicts, Ask("GET", job_path(job, "conflicts")))


def league(job: JobLike) -> Steps[League]:
    """The method of a job and its baselines side by side, with what proofs of the job say of them.

    Args:
        job: The job.

    Raises:
        Conflict: The job has no result, or not yet.
    """
    return ask_for(League, Ask("GET", job_path(job, "league")))


def suspects(job: JobLike, *, query: str = "", limit: int = 20, cursor: str | None = None) -> Steps[Suspects]:
    """A page of the rows that look most wrong, the worst first, with their text.

    Args:
        job: The job.
        query: Only rows whose text has this in it, case and Unicode form aside.
        limit: Rows on a page, 200 at most.
        cursor: `next_cursor` of the page before.

    Raises:
        Conflict: The job has no result, or not yet.
        NotFound: The rows are not kept any more.
    """
    params = {"query": query or None, "limit": limit, "cursor": cursor}
    return ask_for(Suspects, Ask("GET", job_path(job, "suspects"), params=params))


def scores(job: JobLike, output: Output = None) -> Steps[Downloaded]:
    """Save the figures of every usable row as Parquet: loss, norm, cosine, ifd, end_loss, suspicion, and its fate.

    Args:
        job: The job.
        output: As for `download`.

    Raises:
        Conflict: The job has no result, or not yet.
        NotFound: The figures are not kept any more.
    """
    return download_file(Ask("GET", job_path(job, "scores")), output, f"scores-{id_of(job)}.parquet")


def rejected(job: JobLike) -> Steps[RejectedRows]:
    """Every row that could not be used or was filtered, by reason."""
    return ask_for(RejectedRows, Ask("GET", job_path(job, "rejected")))
