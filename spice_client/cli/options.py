"""What several commands have in common: where the service is, who asks, how the answer is written."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spice_client.cli.failure import refusal, reported
from spice_client.client import SpiceClient
from spice_client.connection import DEFAULT_URL
from spice_client.retrying import Patience

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spice_client.problems import SpiceError

Url = Annotated[
    str, typer.Option("--url", envvar="SPICE_API_URL", help="Where the service is.", rich_help_panel="Service")
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="SPICE_API_KEY",
        show_envvar=True,
        show_default=False,
        help="Key of the service; rather set the variable: others on this machine can read a command line.",
        rich_help_panel="Service",
    ),
]
WaitS = Annotated[
    float,
    typer.Option(
        "--patience",
        min=0,
        help="Seconds that the service may be out of reach or busy, once it has answered.",
        rich_help_panel="Service",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts; errors as JSON on stderr.")]
DatasetName = Annotated[
    str | None, typer.Option(help="URI, path on this machine, id of a dataset, or the hub's `org/name@commit`.")
]
ModelName = Annotated[
    str | None, typer.Option(help="URI or path on this machine of the model, or the hub's `org/name@commit`.")
]
Budget = Annotated[str | None, typer.Option(help="Rows to pick: `500`, `0.1`, `10%`, or '200000 tokens'.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

URL = DEFAULT_URL
PATIENCE_S = 10.0


@contextmanager
def service(
    url: str,
    api_key: str | None,
    *,
    patience_s: float = PATIENCE_S,
    from_the_start: bool = False,
    as_json: bool = False,
) -> Iterator[SpiceClient]:
    """A client whose failures end the command.

    Args:
        url: Where the service is.
        api_key: Who asks.
        patience_s: Seconds of one outage that are sat out.
        from_the_start: Also if the service has not answered at all; else that is said at once.
        as_json: Report failures as JSON.
    """
    with reported(as_json=as_json):
        patience = Patience(patience_s, until_first_answer=from_the_start, waiting=_say)
        with SpiceClient(url, api_key=api_key, patience=patience) as client:
            yield client


def agreed(question: str) -> bool:
    """Ask on the terminal; no is the answer of whoever just presses Enter.

    Raises:
        CommandFailedError: There is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise refusal("Nobody is there to agree", "without a terminal give --yes")
    return typer.confirm(question, err=True)


def echo_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Write a value to stdout as JSON."""
    typer.echo(json.dumps(value))


def _say(failure: SpiceError) -> None:
    typer.echo(f"waiting: {failure.detail or failure.title}", err=True)
