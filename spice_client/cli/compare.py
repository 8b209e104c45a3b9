"""`spice compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from spice_client.cli.console import fits, is_narrow, print_table
from spice_client.cli.failure import refusal
from spice_client.cli.ids import JobIds, whole_ids
from spice_client.cli.options import PATIENCE_S, URL, ApiKey, AsJson, Url, WaitS, echo_json, service
from spice_client.words import short

if TYPE_CHECKING:
    from spice_client.comparison import Comparison

NUMBERS = ("ROWS", "LOG DET", "CERTIFICATE", "CONFLICT")
SHORT_NUMBERS = ("ROWS", "LOG DET", "CERT.", "CONFLICT")


def compare(
    job_ids: JobIds,
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
        comparison = client.compare(whole_ids(client, job_ids))
    if as_json:
        echo_json(comparison.document())
    else:
        _show(comparison)


def _show(comparison: Comparison) -> None:
    letters = [_letter(place) for place in range(len(comparison.jobs))]
    columns = letters if comparison.same_rows else []  # else an overlap would be of unlike rows
    headings = ("", "ID", "NAME", "METHOD", *NUMBERS)
    shared = tuple(f"SAME AS {letter}" for letter in columns)
    rows = _figures(comparison, letters)
    overlaps = [tuple(f"{overlap:.1%}" for overlap in one.overlap if columns) for one in comparison.jobs]
    right = ",".join((*NUMBERS, *shared))
    beside = [(*row, *overlap) for row, overlap in zip(rows, overlaps, strict=True)]
    if fits((*headings, *shared), beside):
        print_table((*headings, *shared), beside, right=right)
    else:
        print_table(("", "ID", "NAME", "METHOD", *SHORT_NUMBERS), rows, cut="NAME", right=",".join(SHORT_NUMBERS))
        if columns:
            typer.echo()
            matrix = [(one, *overlap) for one, overlap in zip(letters, overlaps, strict=True)]
            print_table(("SAME ROWS AS", *columns), matrix, right=",".join(columns))
    if not comparison.same_scale:
        typer.echo("note: sketches or alpha differ, so log-dets are of different scales", err=True)
    if not comparison.same_rows:
        typer.echo("note: the data differ, so row numbers do not name the same rows, and none are counted", err=True)


def _figures(comparison: Comparison, letters: list[str]) -> list[tuple[str, ...]]:
    return [
        (
            letter,
            short(one.job.id) if is_narrow() else str(one.job.id),
            one.job.name or "",
            one.job.selection.method,
            f"{one.result.selected:,}",
            f"{one.result.log_det:.3f}",
            f"{one.result.certificate.value:.4f}",
            f"{one.result.mean_conflict:.4f}",
        )
        for letter, one in zip(letters, comparison.jobs, strict=True)
    ]


def _letter(place: int) -> str:
    """A, B, ... Z, then numbers."""
    return chr(ord("A") + place) if place < 26 else str(place + 1)  # noqa: PLR2004 - letters of the alphabet
