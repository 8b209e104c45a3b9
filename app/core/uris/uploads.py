"""What an uploaded file is called: `upload://<project>/<SHA-256>/<name>`.

The service makes these names. Of a client's own name it keeps letters, digits, dots, dashes and underscores, so that no
name leads anywhere.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from app.core.storage.names import upload_prefix, uploads_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

_URI = re.compile(r"upload://(?P<project>[0-9a-f-]{36})/(?P<digest>[0-9a-f]{64})/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)")
_OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9._-]+")
LONGEST_NAME = 120
LONGEST_STEM = 80
SUFFIXES = 2
"""The format's and the compression's."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file.

    Attributes:
        project_id: The project that owns it.
        digest: SHA-256 of its content, in hexadecimal.
        name: Its name, as `clean_name` leaves it.
    """

    project_id: uuid.UUID
    digest: str
    name: str

    @property
    def uri(self) -> str:
        """As a job names it."""
        return f"upload://{self.project_id}/{self.digest}/{self.name}"

    @property
    def artifact(self) -> str:
        """Its name in the artifact store."""
        return f"{upload_prefix(self.project_id, self.digest)}{self.name}"


def upload_of(uri: str) -> Upload | None:
    """The upload that a URI names; None if it names none. Whether the file is there is not looked at."""
    found = _URI.fullmatch(uri)
    if found is None or len(found["name"]) > LONGEST_NAME:
        return None
    try:
        project_id = uuid.UUID(found["project"])
    except ValueError:
        return None
    upload = Upload(project_id, found["digest"], found["name"])
    return upload if upload.uri == uri else None


def uploads_in(project_id: uuid.UUID, artifacts: Iterator[str]) -> Iterator[Upload]:
    """The uploads of a project among the names of artifacts; files that are still being written are none."""
    for artifact in artifacts:
        upload = upload_of(f"upload://{project_id}/{artifact.removeprefix(uploads_prefix(project_id))}")
        if upload is not None:
            yield upload


def clean_name(name: str) -> str:
    """A file's name without its directories, and with nothing in it but letters, digits, dots, dashes, underscores.

    Args:
        name: As the client calls the file. Only its suffixes matter to the service; the rest is for people.
    """
    last = PurePosixPath(name.replace("\\", "/")).name
    suffixes = "".join(PurePosixPath(last).suffixes[-SUFFIXES:])
    stem = _OTHER_CHARACTERS.sub("-", last.removesuffix(suffixes)).strip("-._")
    kept = _OTHER_CHARACTERS.sub("-", suffixes)
    return f"{stem[:LONGEST_STEM] or 'rows'}{kept}"[:LONGEST_NAME]
