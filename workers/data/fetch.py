"""Copy a dataset from wherever it is into the local cache, so that a job reads one snapshot that cannot change.

https and s3 go through fsspec. Local files are opened here, one directory at a time, because the check that a
file is inside the allowed roots must hold for the file that is opened, not for a path that was looked at before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import ssl
import stat
import time
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote, unquote

import aiohttp
import botocore.exceptions  # type: ignore[import-untyped]
import fsspec
import httpx2
import tenacity
from fsspec.exceptions import FSTimeoutError
from huggingface_hub import HfApi, HfFileSystem, RepoFile
from huggingface_hub.errors import HfHubHTTPError

from app.core.storage import StorageFailed, open_artifacts
from app.core.uris.addresses import PublicSockets
from app.core.uris.datasets import UriRefused, check_uri, hub_file, is_dataset_file
from workers.data.errors import DatasetError
from workers.data.stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.core.settings import Settings
    from app.core.uris.datasets import Compression, DatasetUri, Format

CHUNK_BYTES = 1 << 20
ATTEMPTS = 4
CONNECT_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 60.0
MAX_REDIRECTS = 5
MOST_FILES = 10_000
_MANY = ".files"
READ_AHEAD, NO_CACHE = "readahead", "none"
"""How fsspec reads a file: in blocks, or what is asked for alone."""
SOURCE_ERRORS = (
    OSError,
    FSTimeoutError,
    aiohttp.ClientError,
    botocore.exceptions.BotoCoreError,
    HfHubHTTPError,
    httpx2.HTTPError,
)
_SERVER_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_SUFFIX = {"gzip": ".gz", "zstd": ".zst", None: ""}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A local copy of a dataset, named by its content.

    Attributes:
        path: The copy, as stored at the source (compressed if the source is).
        format: How the rows are written.
        compression: What the file is wrapped in, or None.
        bytes: Size as stored.
        fingerprint: ``sha256:<hex>`` of the bytes as stored; of many files, of their fingerprints.
        parts: Of many files, each, in the order of their rows.
        name: Where a part came from.
    """

    path: Path
    format: Format
    compression: Compression | None
    bytes: int
    fingerprint: str
    parts: tuple[Snapshot, ...] = ()
    name: str = ""


def fetch(
    uri: DatasetUri,
    settings: Settings,
    *,
    on_bytes: Callable[[int, int | None], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Snapshot:
    """Copy a dataset into ``<cache_path>/datasets/<sha256>.<suffix>``.

    Args:
        uri: From `app.core.uris.datasets.check_uri`.
        settings: ``dataset_max_bytes``, ``fetch_timeout_s``, ``cache_path`` and what `check_uri` reads.
        on_bytes: Called about once a MiB with bytes so far and the total (None if unknown), while the caller
            waits but perhaps on another thread. A retry starts again from 0.
        should_stop: Asked as often; True gives up.

    Returns:
        The snapshot. A copy that is there already is used again.

    Raises:
        DatasetError: ``missing``, ``no_permission``, ``not_a_file``, ``uri_refused``, ``address_refused``,
            ``too_large``, ``timed_out``, ``http_status``, ``unreachable``, ``cache_not_writable``.
        StorageFailed: The artifact store can't give an uploaded file.
        Stopped: ``should_stop`` said so.
    """
    if uri.many or uri.parts:
        return _fetch_many(uri, settings, on_bytes=on_bytes, should_stop=should_stop)
    copy = {"file": _copy_file, "https": _copy_https, "s3": _copy_s3, "hf": _copy_hub, "upload": _copy_upload}[
        uri.scheme
    ]
    deadline = time.monotonic() + settings.fetch_timeout_s
    sink = _Sink(settings, deadline, on_bytes, should_stop)
    try:
        with sink:
            for attempt in attempts(settings):
                with attempt:
                    sink.restart()
                    copy(uri, settings, sink)
            return sink.keep(uri)
    except StorageFailed:
        raise  # the artifact store's own words; where it is away, the job waits for it
    except SOURCE_ERRORS as error:
        raise _explained(error, uri, settings) from error


def attempts(settings: Settings) -> tenacity.Retrying:
    """What tries again where a source is busy or a connection breaks."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_transient),
        stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_after_delay(settings.fetch_timeout_s),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
        reraise=True,
    )


def recall(uri: DatasetUri, fingerprint: str, settings: Settings) -> Snapshot | None:
    """The copy of a dataset that was fetched before, by its fingerprint; None if it is not in the cache."""
    if uri.many or uri.parts:
        return _recall_many(settings, fingerprint)
    path = _copy_path(settings, fingerprint.removeprefix("sha256:"), uri)
    try:
        size = path.stat().st_size
    except OSError:
        return None
    return Snapshot(path, uri.format, uri.compression, size, fingerprint)


def _copy_path(settings: Settings, digest: str, uri: DatasetUri) -> Path:
    return settings.cache_path / "datasets" / f"{digest}.{uri.format}{_SUFFIX[uri.compression]}"


def _fetch_many(
    uri: DatasetUri,
    settings: Settings,
    *,
    on_bytes: Callable[[int, int | None], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Snapshot:
    """Copy the files of a dataset, one after the other, into a directory that is named by what is in them."""
    files = all_files(uri, settings)
    if len(files) > MOST_FILES:
        raise DatasetError(
            "too_many_files", f"the dataset has {len(files):,} files, the limit is {MOST_FILES:,}: join them"
        )
    formats = {file.format for file in files}
    if len(formats) > 1:
        raise DatasetError(
            "mixed_formats", f"the dataset's files are {', '.join(sorted(formats))}: give files of one format"
        )
    done = 0
    copies: list[Snapshot] = []
    for file in files:
        begun = done
        tell = None if on_bytes is None else lambda size, _, begun=begun: on_bytes(begun + size, None)
        copies.append(replace(fetch(file, settings, on_bytes=tell, should_stop=should_stop), name=file.without_query))
        done += copies[-1].bytes
        if done > settings.dataset_max_bytes:
            raise DatasetError(
                "too_large",
                f"the dataset's files have {done:,} bytes or more, the limit is {settings.dataset_max_bytes:,}: give "
                "fewer, or raise SPICE_DATASET_MAX_BYTES",
            )
    return _keep_many(copies, settings)


def _keep_many(copies: list[Snapshot], settings: Settings) -> Snapshot:
    about = [
        {"name": one.name, "format": one.format, "compression": one.compression, "fingerprint": one.fingerprint}
        for one in copies
    ]
    digest = hashlib.sha256(json.dumps([one["fingerprint"] for one in about]).encode()).hexdigest()
    final = settings.cache_path / "datasets" / f"{digest}{_MANY}"
    temporary = final.with_name(f".{os.getpid()}-{secrets.token_hex(8)}")
    with cache_errors():
        temporary.mkdir(parents=True)
        try:
            for place, one in enumerate(copies):
                os.link(one.path, temporary / f"{place:05d}")
            (temporary / "about.json").write_text(json.dumps(about))
            with contextlib.suppress(OSError):  # it is there already
                temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    found = _recall_many(settings, f"sha256:{digest}")
    if found is None:
        raise DatasetError("cache_not_writable", "the dataset's files were deleted while they were copied: try again")
    return found


def _recall_many(settings: Settings, fingerprint: str) -> Snapshot | None:
    path = settings.cache_path / "datasets" / f"{fingerprint.removeprefix('sha256:')}{_MANY}"
    try:
        about = json.loads((path / "about.json").read_text())
        parts = tuple(
            Snapshot(
                path=path / f"{place:05d}",
                format=one["format"],
                compression=one["compression"],
                bytes=(path / f"{place:05d}").stat().st_size,
                fingerprint=one["fingerprint"],
                name=one["name"],
            )
            for place, one in enumerate(about)
        )
    except (OSError, ValueError, KeyError):
        return None
    return Snapshot(path, parts[0].format, None, sum(part.bytes for part in parts), fingerprint, parts)


def all_files(uri: DatasetUri, settings: Settings) -> list[DatasetUri]:
    """The files of a dataset in the order of their rows; raises as `files_of`."""
    return [file for one in uri.parts or (uri,) for file in files_of(one, settings)]


def files_of(uri: DatasetUri, settings: Settings) -> list[DatasetUri]:
    """The files that a URI names, by name in order.

    Raises:
        DatasetError: ``missing`` if there is none, and those of the source.
    """
    if not uri.many:
        return [uri]
    find = {"file": _local_files, "s3": _s3_files, "hf": _hub_files}[uri.scheme]
    try:
        found = find(uri, settings)
    except UriRefused as error:
        raise DatasetError("uri_refused", str(error)) from error
    except SOURCE_ERRORS as error:
        raise _explained(error, uri, settings) from error
    if not found:
        raise DatasetError(
            "missing",
            f"{uri.without_query} names no file of rows: check the names, which should end in .jsonl, .json, .csv or "
            ".parquet",
        )
    return found


def _asked(uri: DatasetUri, name: str) -> str | None:
    """The format that a file has by its name; where that tells none, the one that was asked for."""
    return None if is_dataset_file(name) else uri.format


def _local_files(uri: DatasetUri, settings: Settings) -> list[DatasetUri]:
    path = uri.path
    if path.is_dir():
        direct = [one for one in path.iterdir() if one.is_file() and is_dataset_file(one.name)]
        found = direct or [one for one in path.rglob("*") if one.is_file() and is_dataset_file(one.name)]
    else:
        fixed = next((place for place, part in enumerate(path.parts) if set("*[") & set(part)), len(path.parts))
        base = Path(*path.parts[:fixed])
        found = (
            [one for one in base.glob("/".join(path.parts[fixed:])) if one.is_file()] if fixed < len(path.parts) else []
        )
    return [check_uri(one.as_uri(), settings, _asked(uri, one.name)) for one in sorted(found)]


def _s3_files(uri: DatasetUri, settings: Settings) -> list[DatasetUri]:
    filesystem = _s3(settings)
    prefix = unquote(uri.uri)
    found = filesystem.find(prefix) if prefix.endswith("/") else filesystem.glob(prefix)
    names = sorted(str(one) for one in found if is_dataset_file(str(one).rpartition("/")[2]))
    return [check_uri(f"s3://{quote(one)}", settings) for one in names]


def _hub_files(uri: DatasetUri, settings: Settings) -> list[DatasetUri]:
    """The shards of a dataset at a commit: those of the configuration, of the split `train` if there are splits."""
    repository, revision, config = uri.repository
    tree = HfApi(endpoint=settings.hub_url).list_repo_tree(
        repository, revision=revision, repo_type="dataset", recursive=True
    )
    paths = sorted(entry.path for entry in tree if isinstance(entry, RepoFile))
    files = [file for path in paths if (file := hub_file(uri, path, None)) is not None]
    files = [file for file in files if not file.uri.endswith(("/dataset_infos.json", "/dataset_info.json"))]
    if config is not None:
        files = [file for file in files if config in _below(file)[:-1] or _below(file)[-1].startswith(f"{config}.")]
    else:
        files = [file for file in files if _below(file)[0] == "data"] or files
    parquet = [file for file in files if file.format == "parquet"]
    files = parquet or files
    return [file for file in files if re.search(r"(^|[^a-z])train([^a-z]|$)", "/".join(_below(file)))] or files


def _below(file: DatasetUri) -> list[str]:
    return file.uri.split("@", 1)[1].split("/")[1:]


def _open_on_hub(uri: DatasetUri, settings: Settings, cache: str) -> Any:  # noqa: ANN401 - fsspec has no types
    filesystem = HfFileSystem(endpoint=settings.hub_url, skip_instance_cache=True)
    return filesystem.open(uri.uri.removeprefix("hf://"), "rb", block_size=8 * CHUNK_BYTES, cache_type=cache)


def _copy_hub(uri: DatasetUri, settings: Settings, sink: _Sink) -> None:
    with _open_on_hub(uri, settings, READ_AHEAD) as source:
        sink.expect(source.size)
        while chunk := source.read(CHUNK_BYTES):
            sink.write(chunk)


def _copy_upload(uri: DatasetUri, settings: Settings, sink: _Sink) -> None:
    artifacts, name = open_artifacts(settings), uri.upload.artifact
    stored = artifacts.stat(name)
    if stored is None:
        raise DatasetError("missing", f"{uri.uri} is not there any more: upload the file again (POST /files)")
    sink.expect(stored.size)
    with artifacts.open(name) as source:
        while chunk := source.read(CHUNK_BYTES):
            sink.write(chunk)
    if sink.digest() != uri.upload.digest:
        raise DatasetError(
            "damaged",
            f"{uri.uri} has other bytes ({stored.size:,}) in the artifact store than were uploaded: upload the file "
            "again (POST /files)",
        )


class _Sink:
    """The growing copy: hashes, counts, and stops at the limits. Enough of a file for fsspec to write to it."""

    def __init__(
        self,
        settings: Settings,
        deadline: float,
        on_bytes: Callable[[int, int | None], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._settings = settings
        self._deadline = deadline
        self._on_bytes = on_bytes
        self._should_stop = should_stop
        self._directory = settings.cache_path / "datasets"
        self._temporary = self._directory / f".{os.getpid()}-{secrets.token_hex(8)}.part"
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._size = 0
        self._reported = 0
        self._total: int | None = None

    def __enter__(self) -> None:
        with cache_errors():
            self._directory.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            if self._file:
                self._file.close()
            self._temporary.unlink(missing_ok=True)

    @property
    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("the sink is not open")
        return self._file

    def restart(self) -> None:
        """Throw away what an earlier attempt wrote."""
        with cache_errors():
            self._open_file.seek(0)
            self._open_file.truncate()
        self._hash = hashlib.sha256()
        self._size = self._reported = 0
        self._total = None

    def expect(self, total: int | None) -> None:
        """Hear the size that the source claims, and refuse it early if it is over the limit."""
        self._total = total
        if total is not None:
            self._check_size(total)

    def write(self, chunk: bytes) -> int:
        """Take the next bytes; DatasetError or Stopped at a limit."""
        self._size += len(chunk)
        self._check_size(self._size)
        if time.monotonic() > self._deadline:
            raise _timed_out(self._settings)
        if self._should_stop is not None and self._should_stop():
            raise Stopped
        with cache_errors():
            self._open_file.write(chunk)
        self._hash.update(chunk)
        if self._on_bytes is not None and (self._size - self._reported >= CHUNK_BYTES or not chunk):
            self._reported = self._size
            self._on_bytes(self._size, self._total)
        return len(chunk)

    def read(self, _size: int = -1) -> bytes:
        """Nothing: fsspec takes an object for a file if it has ``read``, ``tell`` and ``close``."""
        return b""

    def tell(self) -> int:
        """Bytes so far."""
        return self._size

    def close(self) -> None:
        """Left to the ``with`` block, which knows whether the copy is complete."""

    def digest(self) -> str:
        """SHA-256 of the bytes so far, in hexadecimal."""
        return self._hash.hexdigest()

    def keep(self, uri: DatasetUri) -> Snapshot:
        """Give the complete copy its final name."""
        if self._on_bytes is not None:
            self._on_bytes(self._size, self._size)
        digest = self.digest()
        path = _copy_path(self._settings, digest, uri)
        with cache_errors():
            self._open_file.flush()
            os.fsync(self._open_file.fileno())
            self._temporary.replace(path)
        return Snapshot(path, uri.format, uri.compression, self._size, f"sha256:{digest}")

    def _check_size(self, size: int) -> None:
        limit = self._settings.dataset_max_bytes
        if size > limit:
            raise DatasetError(
                "too_large",
                f"the dataset has {size:,} bytes or more, the limit is {limit:,}: split it, compress it, or raise "
                "SPICE_DATASET_MAX_BYTES",
            )


@contextlib.contextmanager
def cache_errors() -> Iterator[None]:
    """Say so where the cache can't be written."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            "cache_not_writable",
            f"the dataset cache cannot be written ({error.strerror}): free space or see SPICE_CACHE_DIR",
        ) from error


def _copy_file(uri: DatasetUri, settings: Settings, sink: _Sink) -> None:
    descriptor = _open_inside_roots(uri, settings)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError("not_a_file", f"{uri.path} is not a regular file: give the file that holds the rows")
        sink.expect(status.st_size)
        while chunk := os.read(descriptor, CHUNK_BYTES):
            sink.write(chunk)
    finally:
        os.close(descriptor)


def _open_inside_roots(uri: DatasetUri, settings: Settings) -> int:
    """Open without following any link: directory by directory from a root, so that no swap can lead outside."""
    try:  # links may have changed since the URI was accepted
        path = check_uri(uri.uri, settings, uri.format).path
    except UriRefused as error:
        raise DatasetError("uri_refused", str(error)) from error
    roots = (Path(root).resolve() for root in settings.allowed_roots)
    root = next(root for root in roots if path.is_relative_to(root))
    *directories, name = path.relative_to(root).parts or (".",)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(root, flags | os.O_DIRECTORY)
    for part in directories:
        descriptor = _step(descriptor, part, flags | os.O_DIRECTORY)
    return _step(descriptor, name, flags | os.O_NONBLOCK)  # a FIFO would block until somebody writes to it


def _step(directory: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=directory)
    finally:
        os.close(directory)


class _Size(fsspec.callbacks.Callback):  # type: ignore[misc]
    """Tells the sink what the server says of the size."""

    def __init__(self, sink: _Sink) -> None:
        super().__init__()
        self._sink = sink

    def set_size(self, size: int | None) -> None:
        """Called by fsspec with the Content-Length, if there is one."""
        self._sink.expect(size)


def _copy_https(uri: DatasetUri, settings: Settings, sink: _Sink) -> None:
    with _https(uri, settings, _whole_file) as filesystem:
        filesystem.get_file(uri.uri, sink, callback=_Size(sink), chunk_size=CHUNK_BYTES)


@contextlib.contextmanager
def _https(uri: DatasetUri, settings: Settings, check_hop: aiohttp.ClientMiddlewareType) -> Iterator[Any]:
    """A file system that asks public hosts alone."""
    sockets = PublicSockets()

    async def client(loop: Any, **_: Any) -> aiohttp.ClientSession:  # noqa: ARG001, ANN401 - fsspec's signature
        connector = aiohttp.TCPConnector(
            # Made here, not taken from aiohttp's import time, so that SSL_CERT_FILE counts.
            ssl=ssl.create_default_context(),
            socket_factory=None if settings.https_allow_private else sockets,
        )
        timeout = aiohttp.ClientTimeout(
            total=settings.fetch_timeout_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
        )
        # trust_env stays False: through a proxy the socket would no longer tell where the request goes.
        return aiohttp.ClientSession(connector=connector, timeout=timeout, middlewares=(check_hop,))

    filesystem = fsspec.filesystem(
        "https",
        skip_instance_cache=True,
        get_client=client,
        encoded=True,
        headers={"Accept-Encoding": "identity"},
        max_redirects=MAX_REDIRECTS,
    )
    try:
        yield filesystem
    except (OSError, aiohttp.ClientError) as error:
        if sockets.refused:
            raise DatasetError(
                "address_refused",
                f"{uri.without_query} leads to {sockets.refused[0]}, which is not a public address: only public hosts "
                "may be read over https",
            ) from error
        raise
    finally:
        session = filesystem._session  # noqa: SLF001 - fsspec closes it only when the object is collected
        if session is not None:
            filesystem.close_session(filesystem.loop, session)


async def _whole_file(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Refuse answers that are neither a file nor a redirect nor an error."""
    return await _checked_hop(request, handler, HTTPStatus.OK)


async def _part_of_file(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Refuse answers that are neither a part of a file nor a redirect nor an error, and parts that are too long."""
    response = await _checked_hop(request, handler, HTTPStatus.PARTIAL_CONTENT)
    size = response.content_length
    if response.status == HTTPStatus.PARTIAL_CONTENT and (size is None or size > CHUNK_BYTES):
        raise DatasetError("http_status", f"{request.url.host} answered with more of the file than was asked for")
    return response


async def _checked_hop(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType, wanted: HTTPStatus
) -> aiohttp.ClientResponse:
    """Refuse redirects that leave https, and answers of another status than is wanted, but redirects and errors.

    aiohttp calls this for each hop.
    """
    if request.url.scheme != "https":
        raise DatasetError(
            "uri_refused", f"the server redirects to {request.url.origin()}, which is not https: give an https URI"
        )
    response = await handler(request)
    is_error = response.status >= HTTPStatus.BAD_REQUEST  # which fsspec reports
    is_redirect = not is_error and response.headers.get("Location")
    if response.status != wanted and not is_error and not is_redirect:
        raise DatasetError(
            "http_status", f"{request.url.host} answered {response.status}, without a file: it should answer {wanted}"
        )
    return response


def _s3(settings: Settings) -> Any:  # noqa: ANN401 - fsspec has no types
    return fsspec.filesystem(
        "s3",
        skip_instance_cache=True,
        endpoint_url=settings.s3_endpoint_url,
        config_kwargs={"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S},
    )


def _open_on_s3(uri: DatasetUri, settings: Settings, cache: str) -> Any:  # noqa: ANN401 - fsspec has no types
    # fsspec asks for each range with the ETag of the first look, so an object replaced meanwhile is an error.
    return _s3(settings).open(uri.uri, "rb", block_size=8 * CHUNK_BYTES, cache_type=cache)


def _copy_s3(uri: DatasetUri, settings: Settings, sink: _Sink) -> None:
    with _open_on_s3(uri, settings, READ_AHEAD) as source:
        sink.expect(source.size)
        while chunk := source.read(CHUNK_BYTES):
            sink.write(chunk)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in _SERVER_BUSY
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.InvalidURL | FileNotFoundError | PermissionError):
        return False
    return isinstance(
        error,
        aiohttp.ClientConnectionError
        | aiohttp.ClientPayloadError
        | TimeoutError
        | FSTimeoutError
        | ConnectionError
        | botocore.exceptions.HTTPClientError,
    )


def _opened(uri: DatasetUri, settings: Settings) -> Any:  # noqa: ANN401 - fsspec has no types
    """A file where it is, in a store that reads what is asked for."""
    if uri.scheme == "upload":
        return open_artifacts(settings).open(uri.upload.artifact)
    return (_open_on_s3 if uri.scheme == "s3" else _open_on_hub)(uri, settings, NO_CACHE)


@contextlib.contextmanager
def reader_of(uri: DatasetUri, settings: Settings) -> Iterator[Callable[[int, int], bytes]]:
    """Gives what reads some bytes of a file where it is: those from a place, `CHUNK_BYTES` of them at most.

    Raises:
        DatasetError: The URI or its address is refused, or a server answers without a part of the file.
    """
    if uri.scheme == "file":
        descriptor = _open_inside_roots(uri, settings)
        try:
            yield lambda start, size: os.pread(descriptor, size, start)
        finally:
            os.close(descriptor)
    elif uri.scheme == "https":
        with _https(uri, settings, _part_of_file) as filesystem:
            yield lambda start, size: filesystem.cat_file(uri.uri, start=start, end=start + size)
    else:
        with _opened(uri, settings) as source:

            def read(start: int, size: int) -> bytes:
                source.seek(start)
                found: bytes = source.read(size)
                return found

            yield read


def _explained_by_the_hub(error: HfHubHTTPError, where: str) -> DatasetError:
    """Likewise, of a hub's answer."""
    status = error.response.status_code
    if status == HTTPStatus.NOT_FOUND:
        return DatasetError("missing", f"{where} is not on the hub: check its name and commit")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return DatasetError("no_permission", f"{where} may not be read: give the worker a token that may (HF_TOKEN)")
    return DatasetError("http_status", f"the hub answered {status} for {where}: it should answer 200")


def _explained(error: Exception, uri: DatasetUri, settings: Settings) -> DatasetError:  # noqa: PLR0911 - a line a cause
    """Say in plain words what went wrong at the source."""
    where = uri.without_query
    if isinstance(error, HfHubHTTPError):
        return _explained_by_the_hub(error, where)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return DatasetError("missing", f"{where} does not exist: check the name, and that it is there for the worker")
    if isinstance(error, PermissionError):
        return DatasetError("no_permission", f"{where} may not be read: give the worker permission to read it")
    if isinstance(error, aiohttp.ClientResponseError):
        return DatasetError("http_status", f"{where} answered {error.status} {error.message}: it should answer 200")
    if isinstance(error, TimeoutError | FSTimeoutError):
        return _timed_out(settings)
    if isinstance(error, IsADirectoryError):
        return DatasetError("not_a_file", f"{where} is a directory: give the file that holds the rows")
    # The message of these is the whole URL that a redirect named, with a query that may be a password.
    redirected = isinstance(error, aiohttp.InvalidURL | aiohttp.RedirectClientError)
    why = "it redirects to what is no https URL" if redirected else str(error)
    return DatasetError("unreachable", f"{where} cannot be read: {why or type(error).__name__}")


def _timed_out(settings: Settings) -> DatasetError:
    return DatasetError(
        "timed_out",
        f"fetching the dataset took too long (at most {settings.fetch_timeout_s:g} s in all and "
        f"{READ_TIMEOUT_S:g} s without a byte): use a nearer source, or raise SPICE_FETCH_TIMEOUT_S",
    )
