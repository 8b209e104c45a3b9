"""What a user names in a few words: a dataset, a model, a budget. The request has an object for each."""

from __future__ import annotations

import re
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import quote, urlsplit
from uuid import UUID

from spice_client.models import Dataset, Upload
from spice_client.problems import SpiceError

if TYPE_CHECKING:
    from os import PathLike

    from spice_client.requests import BudgetSize, DatasetSource, ModelSource

    NamedDataset: TypeAlias = DatasetSource | Dataset | Upload | UUID | str | PathLike[str]
    NamedModel: TypeAlias = ModelSource | str | PathLike[str]
    NamedBudget: TypeAlias = BudgetSize | int | float | str

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
WILDCARDS = frozenset("*[")
"""What the service takes for a pattern in the names of files."""


class NothingThere(SpiceError):
    """A path leads to nothing on this machine."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__({"title": "There is no such file", "detail": f"{field}: {detail}"})


class BudgetNotReadable(SpiceError):
    """A budget is neither a number of rows or tokens nor a part of the rows."""

    def __init__(self, given: object) -> None:
        detail = f"budget {given!r}: give a number of rows (500), a fraction (0.1), 10% or '200000 tokens'"
        super().__init__({"title": "The request is not valid", "detail": detail})


def dataset_of(given: NamedDataset) -> DatasetSource:
    """The dataset that a URI, a path on this machine, an id, a registered dataset or an uploaded file names.

    `org/name@commit` is a dataset of the Hugging Face hub, where no such path is here.

    Raises:
        NothingThere: The path leads to nothing.
    """
    if isinstance(given, Dataset | UUID):
        return {"id": str(given.id if isinstance(given, Dataset) else given)}
    if isinstance(given, Upload):
        return {"uri": given.uri}
    if isinstance(given, dict):
        return given
    try:
        return {"id": str(UUID(str(given)))}
    except ValueError:
        return {"uri": uri_of(fspath(cast("str", given)), "dataset", "hf://datasets/")}


def model_of(given: NamedModel) -> ModelSource:
    """The model that a URI or a path on this machine names; `org/name@commit` is one of the Hugging Face hub.

    Raises:
        NothingThere: The path leads to nothing.
    """
    if isinstance(given, dict):
        return given
    return {"uri": uri_of(fspath(cast("str", given)), "model", "hf://")}


def budget_of(given: NamedBudget) -> BudgetSize:
    """A budget: 500 rows, a fraction such as 0.1, a percentage such as "10%", or "200000 tokens".

    Raises:
        BudgetNotReadable: It is none of these.
    """
    if isinstance(given, dict):
        return given
    text = str(given)
    number, tokens, further = text.partition("tokens")
    try:
        if tokens and not further and number.strip().isdigit():
            return {"tokens": int(number)}
        if text.endswith("%"):
            return {"fraction": float(text[:-1]) / 100}
        if text.isdigit():
            return {"count": int(text)}
        return {"fraction": float(text)}
    except ValueError:
        raise BudgetNotReadable(given) from None


def uri_of(given: str, field: str, hub: str) -> str:
    """Turn a path on this machine into a `file://` URI, and a repository with its commit into one of the hub.

    Args:
        given: A path, which may have wildcards, or a colon if it is there; a URI stays as it is.
        field: What is named, for the message.
        hub: How a URI of the hub begins.

    Raises:
        NothingThere: The path leads to nothing.
    """
    if not given:
        raise NothingThere(field, "its name is empty: give a URI or a path")
    if urlsplit(given).scheme and not Path(given).exists():
        return given
    path = Path(given).expanduser().absolute()
    if _is_there(path):
        return _as_uri(path)
    repository, _, commit = given.partition("@")
    if REPOSITORY.fullmatch(repository):
        if COMMIT.fullmatch(commit):
            return f"{hub}{given}"
        raise NothingThere(
            field,
            f"{given} is no path here. If it is a repository of the Hugging Face hub, name its commit, with all 40 "
            f"digits: {hub}{repository}@COMMIT; the service must allow it. Or download it and give the directory",
        )
    raise NothingThere(
        field, f"{path} is not there. A path of the machine that the service runs on is given as file:///path"
    )


def _is_there(path: Path) -> bool:
    fixed, pattern = _parts(path)
    return fixed.exists() and (not pattern or next(iter(fixed.glob(pattern)), None) is not None)


def _as_uri(path: Path) -> str:
    """A URI, in which wildcards stay what they are."""
    fixed, pattern = _parts(path)
    uri = fixed.resolve().as_uri()
    return f"{uri.rstrip('/')}/{quote(pattern, safe='*[]/')}" if pattern else uri


def _parts(path: Path) -> tuple[Path, str]:
    """What comes before the first name with wildcards, and the rest; a file that is called so has none."""
    wild = next((place for place, name in enumerate(path.parts) if WILDCARDS & set(name)), None)
    if wild is None or path.exists():
        return path, ""
    return Path(*path.parts[:wild]), "/".join(path.parts[wild:])


def request_of(given: dict[str, Any]) -> dict[str, Any]:
    """A request out of keyword arguments: what is named in a few words becomes the object of the API."""
    body = {name: value for name, value in given.items() if value is not None}
    for name, read in (("dataset", dataset_of), ("model", model_of)):
        if name in body:
            body[name] = read(body[name])
    if "budget" in body:
        body["selection"] = {**body.get("selection", {}), "budget": budget_of(body.pop("budget"))}
    return body
