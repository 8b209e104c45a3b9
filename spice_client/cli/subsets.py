"""Commands on what a job came to: download, report."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spice_client.cli.failure import refusal
from spice_client.cli.ids import JobId, whole_id
from spice_client.cli.options import PATIENCE_S, URL, ApiKey, AsJson, Url, WaitS, echo_json, service
from spice_client.mlflow_logging import log_job
from spice_client.results import SubsetFormat  # noqa: TC001 - Typer reads the annotations

if TYPE_CHECKING:
    from spice_client.downloads import Downloaded

SUFFIXES: dict[str, SubsetFormat] = {
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
}


Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File to write; `-` is stdout. Left out: the service's name for it."),
]


def download(  # noqa: PLR0913 - one parameter for each flag
    job_id: JobId,
    *,
    output: Output = None,
    format: Annotated[  # noqa: A002 - the name of the flag
        SubsetFormat | None, typer.Option("--format", help="Left out: what FILE's suffix says, else JSON.")
    ] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="The picked rows themselves, in the dataset's own format.")
    ] = False,
    patience: WaitS = PATIENCE_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Download a job's subset. The file appears whole or not at all; a connection that breaks is taken up again."""
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        job_id = whole_id(client, job_id)
        if rows and format:
            raise refusal("Wrong usage", "--rows come in the dataset's own format: leave out --format")
        chosen = format or _format_of(output)
        into = sys.stdout.buffer if _is_stdout(output) else output
        done = client.download(job_id, into, rows=rows, format=chosen)
    _say(job_id, done, as_json=as_json)


def report(
    job_id: JobId,
    *,
    output: Output = None,
    mlflow: Annotated[
        bool,
        typer.Option(
            "--mlflow", help="Also log the job, with its report, to the MLflow server of MLFLOW_TRACKING_URI."
        ),
    ] = False,
    patience: WaitS = PATIENCE_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Save a job's report: one HTML file with the figures, the settings and the certificate."""
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        job_id = whole_id(client, job_id)
        if mlflow and (_is_stdout(output) or find_spec("mlflow") is None):
            raise refusal(
                "Wrong usage",
                "--mlflow keeps the report's file: name one, or leave out --output"
                if _is_stdout(output)
                else "--mlflow needs MLflow: pip install '.[mlflow]' in the repository",
            )
        into = sys.stdout.buffer if _is_stdout(output) else output
        done = client.report(job_id, into)
        if mlflow and done.path is not None:
            run_id = log_job(client.jobs.get(job_id), client.curve(job_id), done.path)
            typer.echo(f"MLflow run {run_id}", err=as_json)
    _say(job_id, done, as_json=as_json)


def _is_stdout(output: Path | None) -> bool:
    return output is not None and str(output) == "-"


def _format_of(output: Path | None) -> SubsetFormat | None:
    """The format that a file name asks for, None if it asks for none."""
    return SUFFIXES.get(output.suffix.lower()) if output else None


def _say(job_id: str, done: Downloaded, *, as_json: bool) -> None:
    if done.path is None:
        sys.stdout.buffer.flush()
        typer.echo(f"-: {done.bytes:,} bytes", err=True)
    elif as_json:
        echo_json({"job_id": job_id, "file": str(done.path.resolve()), "bytes": done.bytes})
    else:
        typer.echo(f"{done.path}: {done.bytes:,} bytes")
