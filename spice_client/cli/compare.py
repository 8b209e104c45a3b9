"""`spice compare`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spice_client.cli.failure import refusal
from spice_client.cli.options import PATIENCE_S, URL, ApiKey, AsJson, Url, WaitS, echo_json, service

if TYPE_CHECKING:
    from spice_client.comparison import Comparison

WIDTH = 250


def compare(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID ID...", help="Two jobs or more.", show_default=False)],
    *,
    patience: WaitS = PATIENCE_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Compare the subsets of jobs: log-det, certificate, mean conflict, and how many rows they share."""
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        if len(job_ids) < 2:  # noqa: PLR2004 - one alone has nothing beside it
            raise refusal("Wrong usage", "give two jobs or more")
        comparison = client.compare(job_ids)
    if as_json:
        echo_json(comparison.document())
    else:
        _show(comparison)


def _show(comparison: Comparison) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "ID", "NAME", "METHOD"):
        table.add_column(heading, no_wrap=True)
    letters = [_letter(place) for place in range(len(comparison.jobs))]
    for heading in ("ROWS", "LOG DET", "CERTIFICATE", "CONFLICT", *(f"SAME AS {letter}" for letter in letters)):
        table.add_column(heading, justify="right", no_wrap=True)
    for letter, one in zip(letters, comparison.jobs, strict=True):
        result = one.result
        table.add_row(
            letter,
            str(one.job.id),
            Text(one.job.name or ""),
            one.job.selection.method,
            f"{result.selected:,}",
            f"{result.log_det:.3f}",
            f"{result.certificate.value:.4f}",
            f"{result.mean_conflict:.4f}",
            *(f"{overlap:.1%}" for overlap in one.overlap),
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(table)
    if not comparison.same_scale:
        typer.echo("note: sketches or alpha differ, so log-dets are of different scales", err=True)
    if not comparison.same_rows:
        typer.echo("note: the data differ, so row numbers do not name the same rows", err=True)


def _letter(place: int) -> str:
    """A, B, ... Z, then numbers."""
    return chr(ord("A") + place) if place < 26 else str(place + 1)  # noqa: PLR2004 - letters of the alphabet
