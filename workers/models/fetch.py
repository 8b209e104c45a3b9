"""Have a model on this machine: where it is not local, a copy in ``<cache_path>/models/<key>`` named by its content.

Only the files that loading needs are fetched. A copy appears under its name complete or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Self, TypeVar

import httpx2
import tenacity
from fsspec.exceptions import FSTimeoutError
from huggingface_hub.errors import HfHubHTTPError

from workers.data.stopping import Stopped
from workers.models.errors import ModelError, in_brief
from workers.models.files import INDEX, Listing
from workers.models.limits import ModelLimits
from workers.models.sources import SOURCE_ERRORS, open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from app.core.settings import Settings
    from app.core.uris.models import ModelUri
    from workers.models.sources import Remote, Source

T = TypeVar("T")

CHUNK_BYTES = 1 << 20
ATTEMPTS = 4
GGUF_NAME = "model.gguf"


class CacheFailed(OSError):
    """The cache can't be written."""


def limits_of(settings: Settings) -> ModelLimits:
    """The settings' limits of a model."""
    return ModelLimits(max_bytes=settings.model_max_bytes, json_max_bytes=settings.model_json_max_bytes)


def fetch_model(uri: ModelUri, settings: Settings, should_stop: Callable[[], bool] | None = None) -> Path:
    """A model's directory, or its GGUF file, on this machine.

    Args:
        uri: From `app.core.uris.models.check_model_uri`.
        settings: ``cache_path``, ``model_max_bytes``, ``model_json_max_bytes``, ``fetch_timeout_s``, and where S3 and
            the hub are.
        should_stop: Asked about once a MiB; True gives up.

    Returns:
        For ``file`` the path itself, else that of a copy; one that is there already is used again, and of a commit on
        the hub then nothing is asked for.

    Raises:
        ModelError: It is not there, is not what a model is, or is larger than the limits; or the cache is full.
        Stopped: ``should_stop`` said so.
    """
    if uri.scheme == "file":
        return uri.path
    copies = settings.cache_path / "models"
    if uri.scheme == "hf":  # a commit never changes
        known = copies / _key(settings.hub_url, uri.uri)
        if known.is_dir():
            return known
    fetching = _Fetching(uri, open_source(uri, settings), settings, should_stop)
    try:
        files = fetching.wanted()
        versions = [[file.name, file.size, file.version] for file in files]
        key = (
            _key(settings.hub_url, uri.uri) if uri.scheme == "hf" else _key(settings.s3_endpoint_url, uri.uri, versions)
        )
        copy = copies / key
        if not copy.is_dir():
            _publish(fetching, files, copy)
    except SOURCE_ERRORS as error:
        raise _explained(error, uri) from error
    return copy / GGUF_NAME if uri.is_gguf else copy


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _publish(fetching: _Fetching, files: Sequence[Remote], copy: Path) -> None:
    """Copy the files and give the directory its name; where another worker was quicker, its copy is as good."""
    unfinished = copy.with_name(f".{os.getpid()}-{secrets.token_hex(8)}")
    try:
        with _cache_errors():
            unfinished.mkdir(parents=True)
        for file in files:
            target = unfinished / (GGUF_NAME if fetching.uri.is_gguf else file.name)
            with _cache_errors():
                target.parent.mkdir(exist_ok=True)
            fetching.copy(file, target)
        with _cache_errors():
            try:
                unfinished.rename(copy)
            except OSError:
                if not copy.is_dir():
                    raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@dataclass(slots=True)
class _Fetching:
    """One attempt at a model: its source, its limits, its clock."""

    uri: ModelUri
    source: Source
    settings: Settings
    should_stop: Callable[[], bool] | None
    deadline: float = 0.0

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.settings.fetch_timeout_s

    def wanted(self) -> list[Remote]:
        """The files that make the model, sorted by name; ModelError if there are none or too large ones."""
        limits = limits_of(self.settings)
        found = {file.name: file for file in _patiently(self.source.files)}
        if self.uri.is_gguf:
            [file] = found.values()
            if file.size > limits.max_bytes:
                raise ModelError(
                    f"model.uri: {file.name} has {file.size:,} bytes, the limit is {limits.max_bytes:,}: "
                    "use a smaller proxy model, or raise SPICE_MODEL_MAX_BYTES"
                )
            return [file]
        if not found:
            raise ModelError(f"model.uri: there is nothing at {self.uri.uri}: check the name")
        listing = Listing(self.uri.uri, {name: file.size for name, file in found.items()})
        small = listing.small(limits)
        index = None
        if INDEX in small:
            with _patiently(lambda: self.source.open(found[INDEX])) as stream:
                index = stream.read(limits.json_max_bytes)
        return [found[name] for name in sorted([*small, *listing.weights(index, limits)])]

    def copy(self, file: Remote, target: Path) -> None:
        """Copy one file; what the source says of its size and content must hold."""
        _patiently(lambda: self._copy(file, target))

    def _copy(self, file: Remote, target: Path) -> None:
        checker, size = self.source.checker(file), 0
        with self.source.open(file) as stream, _CacheFile(target) as copy:
            while chunk := stream.read(CHUNK_BYTES):
                size += len(chunk)
                self._check(size, file)
                copy.write(chunk)
                if checker is not None:
                    checker.update(chunk)
        if size != file.size or (checker is not None and not checker.holds()):
            raise ConnectionError(f"{file.name} arrived damaged or cut short")

    def _check(self, size: int, file: Remote) -> None:
        if self.should_stop is not None and self.should_stop():
            raise Stopped
        if size > file.size:
            raise ModelError(
                f"model.uri: {file.name} was said to have {file.size:,} bytes and has more: copy the model again"
            )
        if time.monotonic() > self.deadline:
            raise ModelError(
                f"model.uri: fetching {self.uri.uri} took more than {self.settings.fetch_timeout_s:g} s: use a nearer "
                "source, or raise SPICE_FETCH_TIMEOUT_S"
            )


class _CacheFile:
    """A growing file of the cache, durable when it is closed; what goes wrong with it is CacheFailed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        with _cache_errors():
            self._file = self._path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        with _cache_errors(), self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def write(self, chunk: bytes) -> None:
        """Append."""
        with _cache_errors():
            self._file.write(chunk)


@contextlib.contextmanager
def _cache_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheFailed(
            error.errno, f"the model cache cannot be written ({error.strerror}): free space or see SPICE_CACHE_DIR"
        ) from error


def _patiently(action: Callable[[], T]) -> T:
    """Do it, and again where the network failed for a moment."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_transient),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
        reraise=True,
    )
    return retrying(action)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, TimeoutError | FSTimeoutError | ConnectionError | httpx2.TransportError)


def _explained(error: Exception, uri: ModelUri) -> Exception:
    """Say in plain words what went wrong at the source."""
    if isinstance(error, CacheFailed):
        return error
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    missing = status == HTTPStatus.NOT_FOUND or isinstance(error, FileNotFoundError)
    if missing:
        return ModelError(f"model.uri: there is nothing at {uri.uri}: check the name, and that the worker may see it")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) or isinstance(error, PermissionError):
        token = "HF_TOKEN" if uri.scheme == "hf" else "AWS_* variables"
        return ModelError(f"model.uri: {uri.uri} may not be read: give the worker credentials that may ({token})")
    return ModelError(f"model.uri: {uri.uri} can't be fetched ({in_brief(error)}): try again later, or copy the model")
