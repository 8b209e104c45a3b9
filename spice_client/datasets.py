"""Operations on registered datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spice_client.models import Dataset, Upload
from spice_client.paths import DatasetLike, dataset_path
from spice_client.sources import NothingThere
from spice_client.steps import Ask, Steps, ask_for, new_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike


def register(
    uri: str | Sequence[str],
    *,
    format: str | None = None,  # noqa: A002 - the name in the API
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Steps[Dataset]:
    """Have a worker read a dataset: rows, columns, bytes and fingerprint, or why it can't be read.

    Args:
        uri: `file://` inside the service's allowed roots, `https://`, `s3://` or `hf://datasets/...`; or many of these,
            in the order in which their rows are numbered.
        format: Overrides what the URI's suffix says: jsonl, json, csv or parquet.
        name: A name for it.
        metadata: What else to note.

    Raises:
        InvalidRequest: The URI is not allowed, or a field is wrong.
    """
    named = {"uri": uri} if isinstance(uri, str) else {"uris": list(uri)}
    given = {**named, "format": format, "name": name, "metadata": metadata}
    body = {key: value for key, value in given.items() if value is not None}
    return ask_for(Dataset, Ask("POST", "/datasets", json=body, headers=new_key()))


def upload(path: str | PathLike[str], *, name: str | None = None) -> Steps[Upload]:
    """Send a file of rows to the service, which keeps it for the project of the key.

    ```python
    dataset = client.datasets.upload("tickets.jsonl")
    client.jobs.submit(dataset=dataset, model="file:///models/smollm2", budget="10%")
    ```

    Args:
        path: The file on this machine: JSONL, JSON, CSV or Parquet, also with .gz or .zst.
        name: What the service calls it; left out, as it is called here. The suffix says the format.

    Raises:
        NothingThere: There is no such file.
        InvalidRequest: The name tells no format of rows, or the content is of another.
        NotAllowed: The project's quota of uploaded files is used up.
    """
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise NothingThere("path", f"{file} is no file here")
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
    params = {"name": name or file.name}
    return (yield from ask_for(Upload, Ask("POST", "/files", params=params, headers=headers, file=file)))


def get(dataset: DatasetLike) -> Steps[Dataset]:
    """What a worker found at a dataset's URI.

    Raises:
        NotFound: There is none with this id.
    """
    return ask_for(Dataset, Ask("GET", dataset_path(dataset)))
