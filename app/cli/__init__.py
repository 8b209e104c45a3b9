"""The command line `spice`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from app.cli import access, processes
from spice_client import cli as client_commands
from spice_client.cli.exit_codes import TABLE
from spice_client.cli.failure import Commands

app = typer.Typer(
    name="spice",
    cls=Commands,
    epilog=f"{TABLE.rstrip()} Those of `prove` are its own.\n",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # they may hold passwords
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(version("spice-select"))
        raise typer.Exit


@app.callback()
def spice(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Data selection for LLM fine-tuning: run the service, or use one over HTTP."""


processes.add_to(app)
client_commands.add_to(app)
access.add_to(app)
