"""A job's request out of a file, of flags, or of both."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spice_client.cli.failure import refusal
from spice_client.sources import budget_of, dataset_of, model_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spice_client.models import Json
    from spice_client.requests import JobRequest

TITLE = "The request is not valid"
SECTIONS = (("dataset", "--dataset"), ("model", "--model"), ("selection", "--budget"))
"""What a request can't do without, and the flags that give it."""


@dataclass
class RequestFlags:
    """What `spice submit` was given beside a file; each overrides the file."""

    dataset: str | None = None
    model: str | None = None
    budget: str | None = None
    name: str | None = None
    metadata: Sequence[str] = field(default_factory=list)
    settings: Sequence[str] = field(default_factory=list)
    preset: str | None = None


def build_job_request(file: str | None, flags: RequestFlags) -> JobRequest:
    """The body of `POST /jobs`, whose fields the service checks.

    Args:
        file: Path of a JSON file, `-` for standard input, None for flags alone.
        flags: Override what the file says.

    Raises:
        CommandFailedError: Something is missing or cannot be read.
    """
    request = _filled(file, flags)
    implied = {"selection"} if request.get("schedule") or request.get("preset") else set()
    for section, flag in SECTIONS:
        if section not in request and section not in implied:
            raise refusal(TITLE, f"there is no {section}: give {flag}, or a request file that has one")
    return cast("JobRequest", _sendable(request))


def build_proof_request(file: str | None, flags: RequestFlags, further: Json) -> Json:
    """The body of `POST /proofs`: as that of a job, or with the job that has all of it.

    Args:
        file: Path of a JSON file, `-` for standard input, None for flags alone.
        flags: Override what the file says.
        further: Fields of the proof itself; override it likewise.

    Raises:
        CommandFailedError: Something is missing or cannot be read.
    """
    request = {**_filled(file, flags), **further}
    if "job" not in request and (missing := [flag for section, flag in SECTIONS if section not in request]):
        raise refusal(TITLE, f"there is no job: give --job, or {', '.join(missing)}, or a request file that has them")
    return _sendable(request)


def _filled(file: str | None, flags: RequestFlags) -> Json:
    """What the file says, overridden by the flags."""
    request = _read(file) if file else {}
    if flags.dataset is not None:
        dataset = _section(request, "dataset")
        for other in ("uri", "uris", "id"):
            dataset.pop(other, None)
        dataset.update(dataset_of(flags.dataset))
    if flags.model is not None:
        _section(request, "model").update(model_of(flags.model))
    if flags.budget is not None:
        _section(request, "selection")["budget"] = budget_of(flags.budget)
    for field_name in ("name", "preset"):
        if (value := getattr(flags, field_name)) is not None:
            request[field_name] = value
    if flags.metadata:
        _section(request, "metadata").update(pairs("--metadata", flags.metadata))
    for entry in flags.settings:
        path, value = pair("--set", entry)
        _put(request, path, _literal(value))
    return request


def _sendable(request: Json) -> Json:
    try:
        json.dumps(request, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:  # not a number, infinite, or bytes of the command line that are no text
        raise refusal(TITLE, f"it holds what can't be sent as JSON: {error}") from None
    return request


def _read(file: str) -> Json:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        request = json.loads(text)
    except OSError as error:
        raise refusal("The request file cannot be read", f"{file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        rows = f". If it is the dataset: --dataset {file}" if Path(file).suffix not in ("", ".json") else ""
        raise refusal("The request file is not JSON", f"{file}: {error}{rows}") from None
    if not isinstance(request, dict):
        raise refusal("The request file is not a request", f"{file}: holds no JSON object")
    return request


def _section(request: Json, name: str) -> Json:
    section = request.setdefault(name, {})
    if not isinstance(section, dict):
        raise refusal(TITLE, f"{name}: is {section!r}, not an object")
    return section


def pair(flag: str, entry: str) -> tuple[str, str]:
    """Key and value of a flag's `KEY=VALUE`."""
    key, equals, value = entry.partition("=")
    if not equals or not key:
        raise refusal(TITLE, f"{flag} {entry!r}: give name=value")
    return key, value


def pairs(flag: str, entries: Iterable[str]) -> dict[str, str]:
    """All entries of a repeatable flag; each key once, as the last of two would win unsaid."""
    found: dict[str, str] = {}
    for entry in entries:
        key, value = pair(flag, entry)
        if key in found:
            raise refusal(TITLE, f"{flag} {entry!r}: {key} is given before, as {found[key]!r}")
        found[key] = value
    return found


def _literal(text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _put(request: Json, path: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
    *sections, last = path.split(".")
    for name in sections:
        request = _section(request, name)
    request[last] = value
