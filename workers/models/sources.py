"""Where models come from, behind one face: what lies there, and the bytes of a file as a stream."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import botocore.exceptions  # type: ignore[import-untyped]
import fsspec
import httpx2
from fsspec.exceptions import FSTimeoutError
from huggingface_hub import HfApi, HfFileSystem, RepoFile
from huggingface_hub.errors import HfHubHTTPError

from app.core.uris.models import GGUF
from workers.models.errors import ModelError
from workers.models.files import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from huggingface_hub.hf_api import RepoFolder

    from app.core.settings import Settings
    from app.core.uris.models import ModelUri

CONNECT_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 60.0
REQUEST_ATTEMPTS = 4
MOST_FILES = 10_000
SOURCE_ERRORS = (
    OSError,
    FSTimeoutError,
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.ClientError,
    HfHubHTTPError,
    httpx2.HTTPError,
)


@dataclass(frozen=True, slots=True)
class Remote:
    """A file of a model at its source.

    Attributes:
        name: Its name; of a chat template beside the default with its directory before it.
        size: Bytes.
        version: What the source says of its content: an ETag, or the hash under which a hub keeps it.
    """

    name: str
    size: int
    version: str


class Source(Protocol):
    """A place that holds a model."""

    def files(self) -> list[Remote]:
        """What lies there, directories left out; one of SOURCE_ERRORS or ModelError if that can't be told."""

    def open(self, file: Remote) -> BinaryIO:
        """The file's bytes from its beginning."""

    def checker(self, file: Remote) -> Checker | None:
        """What the bytes are to be held to; None if the source itself sees to it that they are those of `version`."""


@dataclass(frozen=True, slots=True)
class Checker:
    """A hash that the bytes of a file must have.

    Attributes:
        update: Takes the next bytes.
        holds: Whether all bytes were right; asked at the end.
    """

    update: Callable[[bytes], None]
    holds: Callable[[], bool]


def open_source(uri: ModelUri, settings: Settings) -> Source:
    """The source of an ``s3`` or ``hf`` URI. Nothing is connected to yet."""
    return S3Source(uri, settings.s3_endpoint_url) if uri.scheme == "s3" else HubSource(uri, settings.hub_url)


def _name_in_model(path: str) -> str:
    """The last part of a path, with the directory of further chat templates before it."""
    directory, _, name = path.rpartition("/")
    return f"{TEMPLATES}/{name}" if directory.rpartition("/")[2] == TEMPLATES else name


class S3Source:
    """A prefix, or a single GGUF object, of a bucket."""

    def __init__(self, uri: ModelUri, endpoint_url: str | None) -> None:
        self._uri = uri
        self._filesystem = fsspec.filesystem(
            "s3",
            skip_instance_cache=True,
            use_listings_cache=False,
            endpoint_url=endpoint_url,
            config_kwargs={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                "retries": {"mode": "standard", "total_max_attempts": REQUEST_ATTEMPTS},
            },
        )

    def files(self) -> list[Remote]:
        """The objects directly below the prefix, or the one that the URI names."""
        if self._uri.is_gguf:
            found = [self._filesystem.info(self._uri.uri)]
        else:
            found = self._filesystem.ls(f"{self._uri.uri}/", detail=True)
            if any(entry["name"].rstrip("/").endswith(f"/{TEMPLATES}") for entry in found):
                found += self._filesystem.ls(f"{self._uri.uri}/{TEMPLATES}/", detail=True)
        if len(found) > MOST_FILES:
            raise ModelError(
                f"model.uri: {self._uri.uri} holds {len(found):,} objects, the limit is {MOST_FILES:,}: "
                "give the prefix of one model"
            )
        return [
            Remote(_name_in_model(entry["name"]), int(entry["size"]), str(entry["ETag"]))
            for entry in found
            if entry["type"] == "file" and not entry["name"].endswith("/")
        ]

    def open(self, file: Remote) -> BinaryIO:
        """The object; each range is asked for by ETag, and the first look must show the one that was listed."""
        path = self._uri.uri if self._uri.is_gguf else f"{self._uri.uri}/{file.name}"
        stream = self._filesystem.open(path, "rb", block_size=8 << 20, cache_type="readahead")
        if str(stream.details["ETag"]) != file.version:
            raise OSError(errno.ESTALE, f"{file.name} has changed meanwhile")
        return cast("BinaryIO", stream)

    def checker(self, file: Remote) -> None:  # noqa: ARG002 - S3 holds each range to the ETag
        """None."""
        return


class HubSource:
    """A commit of a repository on a model hub, through huggingface_hub's client.

    A token, where one is needed, comes as HF_TOKEN or from the machine's login, as everywhere with that client.
    """

    def __init__(self, uri: ModelUri, endpoint: str) -> None:
        self._id, self._revision = uri.repository
        self._api = HfApi(endpoint=endpoint)
        self._filesystem = HfFileSystem(endpoint=endpoint, skip_instance_cache=True)

    def files(self) -> list[Remote]:
        """The files at the root of the repository; a large file's version is its sha256, another's its git hash."""
        found = [entry for _, entry in zip(range(MOST_FILES), self._tree(), strict=False)]
        if any(entry.path == TEMPLATES and not isinstance(entry, RepoFile) for entry in found):
            found += [entry for _, entry in zip(range(MOST_FILES), self._tree(TEMPLATES), strict=False)]
        return [
            Remote(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
            for entry in found
            if isinstance(entry, RepoFile) and _name_in_model(entry.path) == entry.path
            if not entry.path.endswith(GGUF)
        ]

    def _tree(self, directory: str | None = None) -> Iterable[RepoFile | RepoFolder]:
        return self._api.list_repo_tree(self._id, path_in_repo=directory, revision=self._revision)

    def open(self, file: Remote) -> BinaryIO:
        """The file of that commit."""
        path = f"{self._id}@{self._revision}/{file.name}"
        return cast("BinaryIO", self._filesystem.open(path, "rb", block_size=0))

    def checker(self, file: Remote) -> Checker:
        """The hash that the hub has listed: what arrives, perhaps from a mirror or a cache, must be that."""
        if len(file.version) == hashlib.sha256().digest_size * 2:
            digest = hashlib.sha256()
        else:  # git's name of a file; it identifies, it is no protection against who can make collisions
            digest = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
        return Checker(digest.update, lambda: digest.hexdigest() == file.version)
