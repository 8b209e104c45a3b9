"""Send a file of rows to the service."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spice_client.cli.exit_codes import ExitCode
from spice_client.cli.failure import CommandFailedError
from spice_client.cli.options import URL, ApiKey, AsJson, Url, WaitS, echo_json, service
from spice_client.problems import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

UPLOAD_S = 60.0


def upload(
    file: Annotated[
        Path, typer.Argument(help="The file: JSONL, JSON, CSV or Parquet, also .gz or .zst.", show_default=False)
    ],
    *,
    name: Annotated[str | None, typer.Option(help="What the service calls it; left out, as it is called here.")] = None,
    patience: WaitS = UPLOAD_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Upload a dataset to a service that does not see this machine's files; prints the URI that names it there.

    `spice submit --upload --dataset FILE` does both at once.
    """
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        kept = client.datasets.upload(file, name=name)
    if as_json:
        echo_json(kept.document())
    else:
        typer.echo(kept.uri)


@contextmanager
def offering_upload(dataset: str | None) -> Iterator[None]:
    """Where a service refuses the URI of a file that is here, say how to send the file instead."""
    try:
        yield
    except InvalidRequest as refused:
        here = dataset is not None and Path(dataset).expanduser().is_file()
        if not here or all(fault.field != "dataset.uri" for fault in refused.errors):
            raise
        offer = {"field": "--dataset", "message": f"{dataset} is here: add --upload to send it to the service"}
        problem = {**refused.document, "errors": [*refused.document["errors"], offer]}
        raise CommandFailedError(ExitCode.REFUSED, problem) from None
