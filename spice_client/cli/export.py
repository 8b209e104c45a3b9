"""`spice export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spice_client.cli.failure import refusal
from spice_client.cli.ids import JobId, whole_id
from spice_client.cli.options import PATIENCE_S, URL, ApiKey, AsJson, Url, WaitS, echo_json, service
from spice_client.exports.formats import ExportFormat  # noqa: TC001 - Typer reads the annotations


def export(  # noqa: PLR0913 - one parameter for each flag
    job_id: JobId,
    *,
    format: Annotated[ExportFormat, typer.Option("--format", help="The trainer.", show_default=False)],  # noqa: A002
    out: Annotated[Path, typer.Option("--out", help="Directory to write to; made if it is not there.")] = Path(),
    name: Annotated[
        str, typer.Option(help="Of the data file, and of the dataset in a trainer's configuration.")
    ] = "train",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also over files that hold something else than this job's export.")
    ] = False,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=COLUMN", help="Instead of the columns that the job read; repeatable."),
    ] = None,
    patience: WaitS = PATIENCE_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Write a job's subset for a trainer: TRL, LLaMA-Factory, Axolotl, or indices for `Dataset.select`."""
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        job_id = whole_id(client, job_id)
        done = client.export(job_id, format, out, name=name, columns=_columns(column), overwrite=overwrite)
    if as_json:
        echo_json(
            {
                "job_id": job_id,
                "files": [str(path.resolve()) for path in done.files],
                "rows": done.rows,
                "notes": done.notes,
            }
        )
        return
    for path in done.files:
        typer.echo(path)
    typer.echo(f"{done.rows:,} rows", err=True)
    for note in done.notes:
        typer.echo(f"note: {note}", err=True)


def _columns(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    columns = {}
    for pair in pairs:
        role, equals, column = pair.partition("=")
        if not equals:
            raise refusal("Wrong usage", f"--column {pair!r}: give role=column, as in prompt=question")
        columns[role] = column
    return columns
