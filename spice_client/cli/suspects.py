"""The command on rows that look wrong."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from spice_client.cli.console import console
from spice_client.cli.ids import JobId, whole_id
from spice_client.cli.options import PATIENCE_S, URL, ApiKey, AsJson, Url, WaitS, echo_json, service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spice_client.client import SpiceClient
    from spice_client.models import Suspect

HEAD = 160
"""Characters of a row that are shown."""
PAGE = 200


def suspects(  # noqa: PLR0913 - one parameter for each flag
    job_id: JobId,
    *,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 20,
    query: Annotated[str, typer.Option(help="Only rows whose text has this in it, case and Unicode form aside.")] = "",
    scores: Annotated[
        Path | None, typer.Option("--scores", help="Also save the figures of every row to this Parquet file.")
    ] = None,
    patience: WaitS = PATIENCE_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List the rows of a job that look most wrong, the worst first. With --json: one array of rows."""
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        job_id = whole_id(client, job_id)
        found = list(_rows(client, job_id, query, limit))
        if scores is not None:
            client.scores(job_id, scores)
    if as_json:
        echo_json([row.document() for row in found])
        return
    out = console()
    for row in found:
        out.print(_line(row), no_wrap=True, overflow="ellipsis")


def _rows(client: SpiceClient, job_id: str, query: str, limit: int) -> Iterator[Suspect]:
    cursor = None
    while limit > 0:
        page = client.suspects(job_id, query=query, limit=min(limit, PAGE), cursor=cursor)
        yield from page.items
        limit -= len(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return


def _line(row: Suspect) -> Text:
    """A row's number, what speaks against it, what became of it, and its head on one line."""
    told = {"ifd": row.ifd, "loss": row.loss, "end": row.end_loss}
    figures = [f"{name} {value:.3g}" for name, value in told.items() if value is not None]
    state = "picked" if row.picked else row.filtered or ""
    head = " / ".join(" ".join(message.content.split()) for message in row.messages)[:HEAD]
    return Text.assemble(
        (f"{row.index:>8}  ", "bold"), f"{row.suspicion:.3f}  {', '.join(figures)}  ", (f"{state}  ", "yellow"), head
    )
