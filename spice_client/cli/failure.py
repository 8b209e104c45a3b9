"""How a command ends when it cannot do its work."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from spice_client.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

Problem = dict[str, Any]
"""A problem document (RFC 9457): title, detail and perhaps status, type, errors."""


class CommandFailedError(Exception):
    """A command cannot do its work; carries the problem and the exit status."""

    def __init__(self, code: ExitCode, problem: Problem) -> None:
        super().__init__(problem.get("detail") or problem.get("title"))
        self.code = code
        self.problem = problem


def refusal(title: str, detail: str, **more: object) -> CommandFailedError:
    """A failure that is the user's to mend."""
    return CommandFailedError(ExitCode.REFUSED, {"title": title, "detail": detail, **more})


@contextmanager
def reported(*, as_json: bool = False) -> Iterator[None]:
    """End the process with the message and exit status of a failure within.

    Args:
        as_json: Write the problem document to stderr instead of a message.
    """
    try:
        yield
    except CommandFailedError as failure:
        if as_json:
            typer.echo(json.dumps(failure.problem), err=True)
        else:
            show_problem(failure.problem)
        raise typer.Exit(failure.code) from None


def show_problem(problem: Problem) -> None:
    """Write a problem to stderr: its title, the detail, each field at fault."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text(str(problem.get("title") or "Error"), style="bold red"))
    errors = problem.get("errors") or []
    for error in errors:
        console.print(Text(f"  {error.get('field')}", style="bold"), Text(str(error.get("message"))), sep=": ")
    if problem.get("detail") and not errors:
        console.print(Text(f"  {problem['detail']}"))
