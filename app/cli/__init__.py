"""The command line `spice`."""

from __future__ import annotations

import typer

from app.cli import access, processes
from spice_client import cli as client_commands
from spice_client.cli.exit_codes import TABLE

app = typer.Typer(
    name="spice",
    help="Data selection for LLM fine-tuning: run the service, or use one over HTTP.",
    epilog=TABLE,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # they may hold passwords
)
processes.add_to(app)
client_commands.add_to(app)
access.add_to(app)
