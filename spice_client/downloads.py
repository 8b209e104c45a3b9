"""Answers of any size: streamed, taken up again where a connection broke, and on the disk whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import httpx

from spice_client.problems import SpiceError
from spice_client.retrying import back_off_s
from spice_client.steps import Ask, AskPatience, Pause, Receive, Steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spice_client.retrying import Patience

AS_IT_IS = {"Accept-Encoding": "identity"}  # a range counts the bytes that are sent


class FileNotWritable(SpiceError):
    """A file can't be written."""

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__({"title": "The file cannot be written", "detail": f"{path}: {cause.strerror or cause}"})


class NotResumable(SpiceError):
    """A download broke off, and what has been handed on can't be taken back."""

    def __init__(self, done: int) -> None:
        detail = f"it broke off after {done:,} bytes, and the service begins from the start: download into a file"
        super().__init__({"title": "The download cannot go on", "detail": detail})


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What was downloaded.

    Attributes:
        path: The file; None if it went elsewhere.
        bytes: Its size.
    """

    path: Path | None
    bytes: int


@dataclass(slots=True)
class Body:
    """The body of an answer as it comes, which may take several connections."""

    file: IO[bytes]
    done: int = 0
    farthest: int = 0
    etag: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def begin(self, response: httpx.Response) -> None:
        """Go on where the connection broke, or from the start where the service has no ranges of it."""
        if response.status_code != httpx.codes.PARTIAL_CONTENT and self.done:
            if not self.file.seekable():
                raise NotResumable(self.done)
            self.file.seek(0)
            self.file.truncate()
            self.done = 0
        self.headers = response.headers
        etag = response.headers.get("ETag", "")
        self.etag = etag if etag and not etag.startswith("W/") else None

    def write(self, chunk: bytes) -> None:
        """The next bytes."""
        self.file.write(chunk)
        self.done += len(chunk)
        self.farthest = max(self.farthest, self.done)

    def range(self) -> dict[str, str]:
        """Headers that ask for the rest, if it is still of the same content."""
        return {"Range": f"bytes={self.done}-", "If-Range": self.etag} if self.done and self.etag else {}


def receive(request: Ask, file: IO[bytes]) -> Steps[Body]:
    """Stream an answer into an open file.

    Raises:
        ServiceUnreachable: The connection breaks again and again, and nothing new has come for as long as the client
            is patient.
        NotResumable: It broke, and neither the service nor the file allows to go on.
    """
    patience: Patience = yield AskPatience()
    body = Body(file)
    reached, since, attempt = 0, time.monotonic(), 1
    while True:
        headers = {**request.headers, **AS_IT_IS, **body.range()}
        try:
            yield Receive(Ask(request.method, request.path, request.params, headers=headers), body)
        except SpiceError as failure:
            if body.farthest > reached:
                reached, since, attempt = body.farthest, time.monotonic(), 1
            pause = back_off_s(attempt, failure)
            if not failure.transient or time.monotonic() + pause - since > patience.seconds:
                raise
            patience.waiting(failure)
            yield Pause(pause)
            attempt += 1
        else:
            return body


def download(request: Ask, output: Path | str | IO[bytes] | None, otherwise: str) -> Steps[Downloaded]:
    """Stream an answer into a file, which appears whole or not at all.

    A link is followed. A device or a pipe, such as /dev/stdout, gets the answer as it comes and stays what it is.

    Args:
        request: What to ask.
        output: The file, replaced if there; or an open binary file; None takes the service's name for it.
        otherwise: The name of a file that neither side has named.

    Raises:
        FileNotWritable: The file cannot be written.
    """
    if output is not None and not isinstance(output, str | Path):
        body = yield from receive(request, output)
        return Downloaded(None, body.done)
    target = Path(output) if output is not None else None
    try:
        if target is not None and target.exists() and not target.is_file() and not target.is_dir():
            with target.open("wb") as file:
                body = yield from receive(request, file)
            return Downloaded(target, body.done)
        place = None if target is None else target.resolve()
        with _part_of(place) as part:
            with part.open("wb") as file:
                body = yield from receive(request, file)
            final = place or Path(_suggested_name(body.headers) or otherwise)
            _give_name(part, final)
            return Downloaded(target or final, body.done)
    except OSError as error:
        raise FileNotWritable(target or Path.cwd(), error) from None


@contextmanager
def _part_of(target: Path | None) -> Iterator[Path]:
    """A file beside the target that is gone in the end."""
    directory, name = (target.parent, target.name) if target else (Path(), "download")
    descriptor, path = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=directory)
    os.close(descriptor)
    try:
        yield Path(path)
    finally:
        Path(path).unlink(missing_ok=True)


def _give_name(part: Path, final: Path) -> None:
    if final.exists():
        shutil.copymode(final, part)
    else:
        part.chmod(0o666 & ~_umask())
    part.replace(final)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _suggested_name(headers: Mapping[str, str]) -> str | None:
    """Take the base name alone out of the header: a server must not choose the directory."""
    found = re.search(r'filename="?([^";]+)"?', headers.get("content-disposition", ""))
    name = Path(found.group(1)).name if found else ""
    return name if name and not name.startswith(".") else None
