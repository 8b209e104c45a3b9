"""Which job is meant: a whole id, the first characters of one, or `@last`."""

from __future__ import annotations

import re
from collections.abc import Iterator  # noqa: TC003 - Typer reads the annotations
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from spice_client.cli.failure import refusal
from spice_client.client import SpiceClient
from spice_client.problems import SpiceError
from spice_client.words import short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spice_client.models import Job

LAST = "@last"
BEGINNING = re.compile(r"[0-9a-f]{1,8}(-?[0-9a-f]{1,12})*-?", re.ASCII)
OFFERED = 30
"""Jobs that a shell is offered for completion."""
PATIENCE_S = 0.0
TITLE = "There is no such job"


def whole_id(client: SpiceClient, given: str) -> str:
    """The id of the job that is meant.

    Raises:
        CommandFailedError: No job is meant, or several may be.
    """
    with suppress(ValueError):
        return str(UUID(given))
    if given == LAST:
        if newest := _first(client, 1):
            return str(newest[0].id)
        raise refusal(TITLE, "there are no jobs yet: spice submit")
    asked = given.lower()
    if not BEGINNING.fullmatch(asked):
        raise refusal(TITLE, f"{given!r} is no id: give a job's id, the first characters of one, or {LAST}")
    found = [job for job in _first(client, OFFERED, asked) if str(job.id).startswith(asked)]
    if len(found) == 1:
        return str(found[0].id)
    if not found:
        raise refusal(TITLE, f"no job's id begins with {given}: spice list shows them")
    several = ", ".join(f"{job.id} ({job.name or job.state})" for job in found[:5])
    raise refusal("Several jobs are meant", f"{given}: {several}{' and more' if len(found) > 5 else ''}")  # noqa: PLR2004


def whole_ids(client: SpiceClient, given: Sequence[str]) -> list[str]:
    """The ids of the jobs that are meant, in the order given."""
    return [whole_id(client, one) for one in given]


def _first(client: SpiceClient, count: int, beginning: str | None = None) -> list[Job]:
    return list(islice(client.jobs.list(id_prefix=beginning, page_size=count), count))


def _offered(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """What a shell may complete an id to; nothing where the service can't be asked."""
    url, key = context.params.get("url"), context.params.get("api_key")
    if incomplete.startswith("@"):
        yield LAST, "the newest job"
        return
    with suppress(SpiceError), SpiceClient(url, api_key=key, patience=PATIENCE_S) as client:
        for job in _first(client, OFFERED, incomplete.lower() or None):
            yield str(job.id), f"{job.state}{f' {job.name}' if job.name else ''}"


JobId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help=f"The job: its id, the first characters of it ({short('3ed80b50-00bd')}), or {LAST}.",
        show_default=False,
        autocompletion=_offered,
    ),
]
JobIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help=f"The jobs: ids, the first characters of ids, or {LAST}.",
        show_default=False,
        autocompletion=_offered,
    ),
]
