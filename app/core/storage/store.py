"""The interface of artifact stores, and their errors."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
AWAY = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "EBUSY", "EAGAIN", "EREMOTEIO", "ENOTCONN", "ETIMEDOUT"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ECONNREFUSED", "ECONNRESET"),
    )
)
"""Numbers of errors that may pass."""
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class StorageFailed(OSError):
    """The store did not do what it was asked; what was to be written is there whole or not at all.

    Attributes:
        operation: The verb and the object's name.
    """

    operation: str = ""


class StorageAway(StorageFailed):
    """An operation failed for a passing reason, such as a server that does not answer; a later try may succeed."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object of the store.

    Attributes:
        name: Its name.
        size: In bytes.
        modified: When it was written, in seconds since 1970 on the store's clock.
        etag: The server's identifier of this content, quoted; empty where the store has none.
    """

    name: str
    size: int
    modified: float
    etag: str = ""


class ArtifactStore(Protocol):
    """Whole objects by name. A reader sees an object's old content or its new one, never a part of either.

    A name is a relative path without `..`; a prefix ends in `/`. Every method may raise StorageFailed.
    """

    place: str
    """Where it is, for messages."""

    def read(self, name: str) -> bytes | None:
        """The object's bytes; None where there is none."""
        ...

    def view(self, name: str) -> memoryview | None:
        """The object's bytes, mapped where they can be; they stay what they are when the object is replaced or deleted.

        None where there is none.
        """
        ...

    def open(self, name: str) -> BinaryIO:
        """The object as a stream that can seek and holds some MiB at most; StorageFailed where there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Create or replace an object; durable when this returns."""
        ...

    def write_new(self, name: str, content: bytes) -> bool:
        """Create an object unless there is one. False: there is one, and it stays."""
        ...

    def put(self, name: str, source: Path) -> None:
        """Create or replace an object by a local file, in bounded memory. The file is the store's to move away."""
        ...

    def stat(self, name: str) -> Stored | None:
        """What is known of an object; None where there is none."""
        ...

    def list(self, prefix: str) -> Iterator[Stored]:
        """The objects below a prefix, in no order; names that begin with a dot are writes that did not end (yet)."""
        ...

    def remove(self, name: str) -> None:
        """Delete an object, if there is one."""
        ...

    def remove_all(self, prefix: str) -> None:
        """Delete everything below a prefix."""
        ...


def check_name(name: str) -> None:
    """Refuse a name that would lead out of the store.

    Raises:
        ValueError: It would.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"artifact name {name!r} leaves the store")


def explained(
    place: str, action: str, name: str, error: BaseException, *, passing: bool | None = None
) -> StorageFailed:
    """An error of the store in plain words: what could not be done, where, why, and what to do.

    Args:
        place: The store.
        action: The verb.
        name: The object.
        error: What happened.
        passing: Whether it passes by itself; None goes by the error's number.
    """
    number = getattr(error, "errno", None)
    if number in _FULL:
        remedy = "free space there, or lower SPICE_ARTIFACTS_MAX_BYTES"
    elif number in _FORBIDDEN or isinstance(error, PermissionError):
        remedy = "let the service write there, or name another place in SPICE_ARTIFACTS_URL"
    elif number == errno.EISDIR:
        remedy = "a directory has the file's name, which the service makes none of: move it away"
    else:
        remedy = "see SPICE_ARTIFACTS_URL, and SPICE_S3_ENDPOINT_URL if it is a bucket"
    reason = os.strerror(number) if number and getattr(error, "filename", None) else str(error) or type(error).__name__
    kind = StorageAway if (number in AWAY if passing is None else passing) else StorageFailed
    failure = kind(f"the artifact store {place} could not {action} {name} ({reason}): {remedy}")
    failure.operation = f"{action} {name}"
    return failure
