"""The frame of the demo's commands: the rows that are asked for, how a command is stopped, and what may go wrong."""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

import httpx
from rich.console import Console

from demo.client import RequestRefusedError
from demo.dataset import TooFewRowsError
from demo.examples import ExamplesMissingError
from demo.model import ModelFailedError
from demo.service import ServiceError
from spice_client import JobFailed, ProofFailed, SpiceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

FORESEEN = (
    ExamplesMissingError,
    JobFailed,
    ModelFailedError,
    ProofFailed,
    RequestRefusedError,
    ServiceError,
    SpiceError,
    TooFewRowsError,
    httpx.TransportError,
    OSError,
)


def parser_of(command: str, about: str | None, rows: int) -> argparse.ArgumentParser:
    """A parser that knows `--rows`.

    Args:
        command: What is typed.
        about: What the command does.
        rows: Rows of its dataset unless the command line says otherwise.
    """
    parser = argparse.ArgumentParser(prog=command, description=about)
    parser.add_argument("--rows", type=_at_least_one, default=rows, help=f"rows of the dataset (default: {rows})")
    return parser


def carry_out(what: str, work: Callable[[Console], int]) -> int:
    """Do a command's work; its exit status.

    Args:
        what: The work, as the beginning of a sentence says it.
        work: Is told where to print, and says the exit status.
    """
    console = Console(soft_wrap=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return work(console)
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    except FORESEEN as error:
        console.print(f"{what} could not go on: {error}", markup=False, highlight=False)
        return 1


def _at_least_one(text: str) -> int:
    rows = int(text)
    if rows < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return rows


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Whoever ends a command, and however: its job is cancelled and the service stopped."""
    raise KeyboardInterrupt
