"""The client commands of `spice`. `app.cli` makes the command line out of these and those that run the service."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from spice_client.cli import compare, estimate, export, jobs, league, prove, subsets, suspects, upload
from spice_client.cli.exit_codes import TABLE

if TYPE_CHECKING:
    import typer


def add_to(app: typer.Typer) -> None:
    """Add the client commands to a command line."""
    with_own_codes = partial(app.command, rich_help_panel="Client")
    add = partial(with_own_codes, epilog=TABLE)
    add("submit")(jobs.submit)
    add("upload")(upload.upload)
    add("estimate")(estimate.estimate)
    add("watch")(jobs.watch)
    add("show")(jobs.show)
    add("open")(jobs.open_page)
    add("list")(jobs.list_jobs)
    add("download")(subsets.download)
    add("export")(export.export)
    add("report")(subsets.report)
    add("league")(league.league)
    add("suspects")(suspects.suspects)
    add("compare")(compare.compare)
    with_own_codes("prove")(prove.prove)
    add("cancel")(jobs.cancel)
    add("delete")(jobs.delete)
