"""Client commands: submit, watch, download, cancel, list. They speak HTTP and need no settings but the URL."""

from __future__ import annotations

import json
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from spice_client.cli import download as subset_file
from spice_client.cli.exit_codes import OF_STATE, TABLE, ExitCode
from spice_client.cli.failure import refusal, reported, show_problem
from spice_client.cli.follow import follow, progress_view
from spice_client.cli.request import RequestFlags, build_request
from spice_client.cli.service import DEFAULT_URL, Service
from spice_client.cli.show import show_job, show_jobs

if TYPE_CHECKING:
    from spice_client.cli.service import Json

INTERRUPTED = 130


class State(StrEnum):
    """States of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Format(StrEnum):
    """Formats of a subset."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


Url = Annotated[
    str, typer.Option("--url", envvar="SPICE_API_URL", help="Where the service is.", rich_help_panel="Service")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts; errors as JSON on stderr.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.", show_default=False)]
Every = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")]
Patience = Annotated[float, typer.Option(min=0, help="Seconds that the service may be out of reach.")]


def submit(  # noqa: PLR0913 - one parameter for each flag
    request: Annotated[
        str | None, typer.Argument(metavar="REQUEST.json", help="The request; `-` reads stdin.", show_default=False)
    ] = None,
    *,
    dataset: Annotated[str | None, typer.Option(help="URI, path on this machine, or id of a dataset.")] = None,
    model: Annotated[str | None, typer.Option(help="URI, or path on this machine, of the model.")] = None,
    budget: Annotated[str | None, typer.Option(help="Rows to pick: `500`, `0.1` or `10%`.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for the job.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Metadata; repeatable.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Any field, as in `selection.conflict_penalty=0.2`."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until the job ends, as `spice watch` does.")] = False,
    every: Every = 1.0,
    patience: Patience = 60.0,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Submit a selection job; prints its id.

    The request comes out of a JSON file, of flags, or of both: flags override the file.
    """
    flags = RequestFlags(dataset, model, budget, name, metadata or [], setting or [])
    with reported(as_json=as_json), Service(url) as service:
        job = service.submit(build_request(request, flags))
        if watch:
            _watch(service, job["id"], every, patience, as_json=as_json)
        else:
            _print(job, as_json=as_json)


def watch(
    job_id: JobId, *, every: Every = 1.0, patience: Patience = 60.0, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Follow a job until it ends: stage, rate, time left. Ctrl-C stops the watching, not the job."""
    with reported(as_json=as_json), Service(url) as service:
        _watch(service, job_id, every, patience, as_json=as_json)


def download(
    job_id: JobId,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; `-` is stdout. Left out: the service's name for it."),
    ] = None,
    format: Annotated[  # noqa: A002 - the name of the flag
        Format | None, typer.Option("--format", help="Left out: what FILE's suffix says, else JSON.")
    ] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="The picked rows themselves, in the dataset's own format.")
    ] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Download a job's subset. The file appears whole or not at all."""
    with reported(as_json=as_json), Service(url) as service:
        if rows and format:
            raise refusal("Wrong usage", "--rows come in the dataset's own format: leave out --format")
        chosen = None if rows else format or subset_file.format_of(output)
        params = {"rows": "true"} if rows else {"format": str(chosen)} if chosen else {}
        target, size = subset_file.download(service, job_id, output, params)
    if as_json and str(target) != "-":
        typer.echo(json.dumps({"job_id": job_id, "file": str(target.resolve()), "bytes": size}))
    else:
        typer.echo(f"{target}: {size:,} bytes", err=str(target) == "-")


def cancel(job_id: JobId, *, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Cancel a job that has not ended. A running one stops within seconds."""
    with reported(as_json=as_json), Service(url) as service:
        _print(service.cancel(job_id), as_json=as_json)


def list_jobs(
    *,
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first. With --json: one array of jobs."""
    with reported(as_json=as_json), Service(url) as service:
        jobs = list(islice(service.jobs(state), limit))
    if as_json:
        typer.echo(json.dumps(jobs))
    else:
        show_jobs(jobs)


def _watch(service: Service, job_id: str, every_s: float, patience_s: float, *, as_json: bool) -> None:
    try:
        with progress_view() as view:
            job = follow(service, job_id, view, every_s, patience_s)
    except KeyboardInterrupt:
        typer.echo(f"The job goes on; to see how far it is: spice watch {job_id}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _print(job, as_json=as_json)
    code = OF_STATE[job["state"]]
    if code is ExitCode.JOB_FAILED and not as_json:
        show_problem(job.get("error") or {"title": "The job failed"})
    raise typer.Exit(code)


def _print(job: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(job))
    else:
        show_job(job)


def add_to(app: typer.Typer) -> None:
    """Add the client commands to a command line."""
    add = partial(app.command, rich_help_panel="Client", epilog=TABLE)
    add("submit")(submit)
    add("watch")(watch)
    add("download")(download)
    add("cancel")(cancel)
    add("list")(list_jobs)
