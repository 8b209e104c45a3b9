"""A subset onto the disk: whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from spice_client.cli.failure import refusal

if TYPE_CHECKING:
    from spice_client.cli.service import Json, Service

FORMATS = {".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv", ".parquet": "parquet"}


def download(service: Service, job_id: str, output: Path | None, params: Json) -> tuple[Path, int]:
    """Stream a subset into a file beside `output` and rename it: a broken download leaves nothing.

    Args:
        service: The service.
        job_id: The job.
        output: File to write, replaced if there; `-` for stdout; None takes the service's name for it.
        params: Query of `GET /jobs/{id}/subset`.

    Returns:
        The file and its size in bytes.

    Raises:
        CommandFailedError: The service refuses or breaks off, or the file cannot be written.
    """
    try:
        with service.subset(job_id, params) as response:
            service.check(response)
            target = output or Path(_suggested_name(response) or f"subset-{job_id}")
            if str(target) == "-":
                return target, _to_stdout(response)
            return target, _to_file(response, target)
    except httpx.HTTPError as error:
        raise service.unreachable(error) from None
    except OSError as error:
        raise refusal("The file cannot be written", f"{output or Path.cwd()}: {error.strerror or error}") from None


def format_of(output: Path | None) -> str | None:
    """The format that a file name asks for, None if it asks for none."""
    return FORMATS.get(output.suffix.lower()) if output else None


def _to_stdout(response: httpx.Response) -> int:
    size = 0
    for chunk in response.iter_bytes():
        size += sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
    return size


def _to_file(response: httpx.Response, target: Path) -> int:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
            size = file.tell()
        if target.exists():
            shutil.copymode(target, part)
        else:
            part.chmod(0o666 & ~_umask())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return size


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _suggested_name(response: httpx.Response) -> str | None:
    """Take the base name alone out of the header: a server must not choose the directory."""
    found = re.search(r'filename="?([^";]+)"?', response.headers.get("content-disposition", ""))
    name = Path(found.group(1)).name if found else ""
    return name if name and not name.startswith(".") else None
