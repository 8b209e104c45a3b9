"""Operations on registered datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spice_client.models import Dataset
from spice_client.paths import DatasetLike, dataset_path
from spice_client.steps import Ask, Steps, ask_for, new_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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


def get(dataset: DatasetLike) -> Steps[Dataset]:
    """What a worker found at a dataset's URI.

    Raises:
        NotFound: There is none with this id.
    """
    return ask_for(Dataset, Ask("GET", dataset_path(dataset)))
