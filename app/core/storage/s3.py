"""Artifacts as objects of an S3-compatible bucket, through fsspec's s3fs. A PUT is atomic and durable by itself.

A request that fails for the moment is made again in two layers: botocore repeats single requests (so that one bad
part does not restart a multipart upload), tenacity whole operations (so that a server may be away for some seconds).
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import botocore.exceptions  # type: ignore[import-untyped]
import fsspec
import tenacity
from fsspec.exceptions import FSTimeoutError

from app.core.storage.store import Stored, check_name, explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

T = TypeVar("T")

MIB = 1 << 20
ATTEMPTS = 6
"""Of an operation; with botocore's own, 10 to 30 s of a server that refuses connections."""
REQUEST_ATTEMPTS = 3
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
PART_BYTES = 8 * MIB
"""Of a multipart upload: 10,000 parts are allowed, s3fs makes them larger for files over 80 GB."""
PARTS_AT_ONCE = 4
READ_BYTES = 2 * MIB
LISTED_AT_ONCE = 1000
DELETED_AT_ONCE = 1000
_CONFLICT = "ConditionalRequestConflict"


class S3Artifacts:
    """A prefix of a bucket as an `ArtifactStore`, whose methods are described there."""

    def __init__(self, url: str, endpoint_url: str | None) -> None:
        """Keep artifacts under `url`.

        Args:
            url: `s3://bucket` or `s3://bucket/prefix`.
            endpoint_url: The server; None is AWS. Credentials come as AWS_* variables or from the machine's role.
        """
        self.place = url if endpoint_url is None else f"{url} at {endpoint_url}"
        self._bucket, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._filesystem = fsspec.filesystem(
            "s3",
            skip_instance_cache=True,
            use_listings_cache=False,  # other processes write too
            max_concurrency=1,  # otherwise every read asks for the size first
            endpoint_url=endpoint_url,
            config_kwargs={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                "retries": {"mode": "standard", "total_max_attempts": REQUEST_ATTEMPTS},
                # Many servers that speak S3 do not know botocore's newer checksums; shards carry their own.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
        )

    def read(self, name: str) -> bytes | None:
        """The object's bytes; None where there is none."""
        path = self._path(name)
        return self._try("read", name, lambda: _unless_missing(lambda: cast("bytes", self._filesystem.cat_file(path))))

    def view(self, name: str) -> memoryview | None:
        """The object's bytes, in memory."""
        content = self.read(name)
        return None if content is None else memoryview(content)

    def open(self, name: str) -> BinaryIO:
        """The object as a stream; each range is asked for by ETag, so an object replaced meanwhile is an error."""
        path = self._path(name)
        return self._try(
            "read",
            name,
            lambda: cast("BinaryIO", self._filesystem.open(path, "rb", block_size=READ_BYTES, cache_type="readahead")),
        )

    def write(self, name: str, content: bytes) -> None:
        """Create or replace an object; durable when this returns."""
        path = self._path(name)
        self._try("write", name, lambda: self._filesystem.pipe_file(path, content))

    def write_new(self, name: str, content: bytes) -> bool:
        """Create an object unless there is one, by a conditional PUT.

        Servers that refuse or ignore `If-None-Match` are asked first whether there is one. Two writers at the same
        moment then both get True, and the last one's content stays.
        """
        path = self._path(name)
        return self.stat(name) is None and self._try("write", name, lambda: self._create(path, content))

    def put(self, name: str, source: Path) -> None:
        """Upload a file, in parts if it is large: a part is 8 MiB, and four are in memory."""
        path = self._path(name)
        self._try(
            "write",
            name,
            lambda: self._filesystem.put_file(
                str(source), path, chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE, mode="overwrite"
            ),
        )

    def stat(self, name: str) -> Stored | None:
        """What is known of an object; None where there is none."""
        path = self._path(name)
        info = self._try("read", name, lambda: _unless_missing(lambda: self._filesystem.info(path)))
        return self._stored(info) if info is not None and info["type"] == "file" else None

    def list(self, prefix: str) -> Iterator[Stored]:
        """The objects below a prefix, a page at a time."""
        asked = {"Bucket": self._bucket, "Prefix": self._path(prefix).partition("/")[2], "MaxKeys": LISTED_AT_ONCE}
        while True:
            page = self._try("list", prefix, partial(self._filesystem.call_s3, "list_objects_v2", **asked))
            for item in page.get("Contents", []):
                yield self._stored({"name": f"{self._bucket}/{item['Key']}", "size": item["Size"], **item})
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def remove(self, name: str) -> None:
        """Delete an object, if there is one."""
        self._delete(name, [name])

    def remove_all(self, prefix: str) -> None:
        """Delete everything below a prefix."""
        names = [stored.name for stored in self.list(prefix)]
        for first in range(0, len(names), DELETED_AT_ONCE):
            self._delete(prefix, names[first : first + DELETED_AT_ONCE])

    def _delete(self, what: str, names: Sequence[str]) -> None:
        keys = [{"Key": self._path(name).partition("/")[2]} for name in names]

        def delete() -> None:
            answer = self._filesystem.call_s3(
                "delete_objects", Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True}
            )
            for error in answer.get("Errors", []):
                number = errno.EACCES if error.get("Code") == "AccessDenied" else errno.EIO
                raise OSError(number, f"{error.get('Code')} {error.get('Message', '')}")

        self._try("delete", what, delete)

    def _create(self, path: str, content: bytes) -> bool:
        try:
            self._filesystem.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if _code(error) == "PreconditionFailed":
                return False
            if _code(error) != "NotImplemented":
                raise
            self._filesystem.pipe_file(path, content)
        return True

    def _path(self, name: str) -> str:
        check_name(name)
        return f"{self._bucket}/{self._prefix}{name}"

    def _stored(self, info: dict[str, Any]) -> Stored:
        name = str(info["name"]).removeprefix(f"{self._bucket}/{self._prefix}")
        etag = str(info.get("ETag") or "")
        return Stored(name, int(info["size"]), info["LastModified"].timestamp(), etag)

    def _try(self, action: str, name: str, operation: Callable[[], T]) -> T:
        """Run an operation, and repeat it after passing errors; StorageFailed if it does not succeed."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_transient),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
            reraise=True,
        )
        try:
            return retrying(operation)
        except (OSError, FSTimeoutError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise explained(self.place, action, name, error, passing=_is_transient(error)) from error


def _unless_missing(look: Callable[[], T]) -> T | None:
    """None for an object that is not there; a bucket that is not there is an error."""
    try:
        return look()
    except FileNotFoundError as error:
        if _code(error) == "NoSuchBucket":
            raise
        return None


def _code(error: BaseException) -> str | None:
    """S3's own name of an error, which s3fs keeps as the cause."""
    response = getattr(error.__cause__, "response", None)
    return None if response is None else response.get("Error", {}).get("Code")


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, FileNotFoundError | PermissionError | FileExistsError):
        return False
    if isinstance(error, OSError) and (error.errno in (errno.EBUSY, errno.EREMOTEIO) or _code(error) == _CONFLICT):
        return True
    return isinstance(
        error,
        TimeoutError
        | FSTimeoutError
        | ConnectionError
        | botocore.exceptions.ConnectionError
        | botocore.exceptions.HTTPClientError,
    )
