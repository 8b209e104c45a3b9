"""How a command ends when it cannot do its work."""

from __future__ import annotations

import errno
import io
import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from spice_client.cli.exit_codes import ExitCode
from spice_client.problems import JobCancelled, JobFailed, ServiceFault, ServiceUnreachable, SpiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
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


class Commands(TyperGroup):
    """The commands of `spice`, which end as other tools do where nobody takes what they write.

    Typer and Rich both end with 1, the status of a job that failed, when the reader of a pipe is gone.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the method that this one overrides
        """Run a command and end the process."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a name that the terminal has no characters for
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):
                raise SystemExit(ExitCode.READER_GONE) from None
            raise
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            place = f"{error.filename}: " if error.filename else ""
            show_problem({"title": "The output cannot be written", "detail": f"{place}{error.strerror}"})
            raise SystemExit(ExitCode.REFUSED) from None


@contextmanager
def reported(*, as_json: bool = False) -> Iterator[None]:
    """End the process with the message and exit status of a failure within.

    Args:
        as_json: Write the problem document to stderr instead of a message.
    """
    try:
        yield
    except CommandFailedError as failure:
        _report(failure.problem, as_json=as_json)
        raise typer.Exit(failure.code) from None
    except SpiceError as failure:
        _report(failure.document, as_json=as_json)
        raise typer.Exit(_exit_code(failure)) from None


def show_problem(problem: Problem) -> None:
    """Write a problem to stderr: its title, the detail, each field at fault."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text(str(problem.get("title") or "Error"), style="bold red"))
    errors = problem.get("errors") or []
    for error in errors:
        console.print(Text(f"  {error.get('field')}", style="bold"), Text(str(error.get("message"))), sep=": ")
    if problem.get("detail") and not errors:
        console.print(Text(f"  {problem['detail']}"))


def _report(problem: Problem, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(problem), err=True)
    else:
        show_problem(problem)


def _exit_code(failure: SpiceError) -> ExitCode:
    match failure:
        case ServiceUnreachable() | ServiceFault():
            return ExitCode.UNREACHABLE
        case JobFailed():
            return ExitCode.JOB_FAILED
        case JobCancelled():
            return ExitCode.JOB_CANCELLED
        case _:
            return ExitCode.REFUSED
