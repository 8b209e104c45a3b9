"""What a client may name: dataset URIs, checked against the settings before anything is read.

Nothing here opens a file or a connection. What can only be known at that moment (a symlink swapped, a host name
that resolves to a private address, a redirect) is checked again by the worker when it reads.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, cast, get_args
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from app.core.storage.names import UPLOADS
from app.core.uris.uploads import Upload, upload_of

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from app.core.settings import Settings

Scheme = Literal["file", "https", "s3", "hf", "upload"]
Format = Literal["jsonl", "json", "csv", "parquet"]
Compression = Literal["gzip", "zstd"]

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_LONGEST_URI = 4096
_GLOB = re.compile(r"[*\[]")
_HUB = re.compile(
    r"hf://datasets/(?P<org>[A-Za-z0-9][\w.-]*)/(?P<name>[A-Za-z0-9][\w.-]*)@(?P<revision>[0-9a-f]{40})"
    r"(?:/(?P<config>[\w.-]+))?/?",
    re.ASCII,
)


class UriRefused(ValueError):
    """A URI that this service will not read. The message names the value, the limit and the remedy."""


@dataclass(frozen=True, slots=True)
class DatasetUri:
    """A dataset URI that the settings allow.

    Attributes:
        scheme: ``file``, ``https``, ``s3``, ``hf`` or ``upload``.
        uri: The URI normalised: absolute and free of symlinks for ``file``, without fragment for ``https``.
        format: How the rows are written.
        compression: What the file is wrapped in, or None.
        many: Whether it names many files: a directory, a pattern, a dataset on the hub. `format` is then what was asked
            for, and else no more than a guess.
        parts: The URIs of a list; `uri` is then the first.
    """

    scheme: Scheme
    uri: str
    format: Format
    compression: Compression | None
    many: bool = False
    parts: tuple[DatasetUri, ...] = ()

    @property
    def path(self) -> Path:
        """The file on this machine; ValueError if the scheme is not ``file``."""
        if self.scheme != "file":
            raise ValueError(f"{self.uri} is not a file")
        return Path(unquote(urlsplit(self.uri).path))

    @property
    def repository(self) -> tuple[str, str, str | None]:
        """Id, commit and configuration on the hub; ValueError if the scheme is not ``hf``."""
        found = _HUB.fullmatch(self.uri)
        if found is None:
            raise ValueError(f"{self.uri} is not on a hub")
        return f"{found['org']}/{found['name']}", found["revision"], found["config"]

    @property
    def upload(self) -> Upload:
        """The uploaded file; ValueError if the scheme is not ``upload``."""
        found = upload_of(self.uri)
        if found is None:
            raise ValueError(f"{self.uri} is no uploaded file")
        return found

    @property
    def without_query(self) -> str:
        """The URI as logs and errors may name it: the query of a presigned URL is a password."""
        return self.uri.partition("?")[0]


def check_uri(
    uri: str,
    settings: Settings,
    format: str | None = None,  # noqa: A002
    project_id: uuid.UUID | None = None,
) -> DatasetUri:
    """Check a dataset URI against the settings.

    Args:
        uri: What the client sent.
        settings: The limits: ``allowed_schemes``, ``allowed_roots``, ``s3_buckets``, ``https_allow_private``.
        format: One of jsonl, json, csv, parquet; overrides what the suffix says.
        project_id: The project that asks, which may name its own uploads alone. None where a request that was checked
            before is carried out.

    Returns:
        The normalised URI with its format and compression. The source need not exist.

    Raises:
        UriRefused: The URI is malformed, of a scheme, place or format that is not allowed.
    """
    parts = split_uri(uri)
    if parts.scheme == "hf":
        return _on_the_hub(uri, settings, format)
    if parts.scheme == "upload":
        return _uploaded(uri, format, project_id)
    scheme = _check_scheme(parts.scheme, settings.allowed_schemes)
    many = scheme != "https" and (parts.path.endswith("/") or _GLOB.search(unquote(parts.path)) is not None)
    if scheme == "file":
        written = local_path(uri, parts)
        many = (many and not written.is_file()) or written.is_dir()
        path = _pattern_inside_roots(written, settings) if many else inside_roots(written, settings)
        # The hub's cache links names such as train.parquet to files that are named by their content.
        normalised, name = path.as_uri(), written.name
    elif scheme == "https":
        _check_host(parts, settings)
        normalised, name = urlunsplit(parts._replace(fragment="")), unquote(parts.path)
    else:
        check_bucket(uri, parts, settings)
        normalised, name = uri, parts.path
    named_format, compression = _from_suffix(name)
    if many:
        known = _check_format(format, named_format or "jsonl", name)
        return DatasetUri(scheme, normalised, known, compression, many=True)
    return DatasetUri(scheme, normalised, _check_format(format, named_format, name), compression)


def check_uris(uris: Sequence[str], settings: Settings, format: str | None = None) -> DatasetUri:  # noqa: A002
    """Check the URIs of a dataset of many files; each may name many itself.

    Raises:
        UriRefused: One of them is refused.
    """
    parts = tuple(check_uri(uri, settings, format) for uri in uris)
    first = parts[0]
    return first if len(parts) == 1 else replace(first, parts=parts)


def is_dataset_file(name: str) -> bool:
    """Whether a file's name tells the format of rows."""
    return not name.startswith((".", "_")) and _from_suffix(name)[0] is not None


def check_file_name(name: str) -> None:
    """Refuse a file's name that does not tell the format of rows.

    Raises:
        UriRefused: It does not.
    """
    if _from_suffix(name)[0] is None:
        raise UriRefused(_tells_no_format(name))


def hub_file(uri: DatasetUri, path: str, format: str | None) -> DatasetUri | None:  # noqa: A002
    """A file of a dataset on the hub by its path there; None if its name tells no format."""
    found, compression = _from_suffix(path)
    if found is None or not is_dataset_file(PurePosixPath(path).name):
        return None
    repository, revision, _ = uri.repository
    return DatasetUri(
        "hf", f"hf://datasets/{repository}@{revision}/{path}", _check_format(format, found, path), compression
    )


def _pattern_inside_roots(path: Path, settings: Settings) -> Path:
    """A directory, or a pattern whose fixed beginning is one, inside the roots."""
    fixed = next((place for place, part in enumerate(path.parts) if _GLOB.search(part)), len(path.parts))
    base = inside_roots(Path(*path.parts[:fixed]), settings)
    if ".." in path.parts[fixed:]:
        raise UriRefused(f"{str(path)!r} has '..' after a pattern: write it without")
    return base.joinpath(*path.parts[fixed:])


def _on_the_hub(uri: str, settings: Settings, format: str | None) -> DatasetUri:  # noqa: A002
    found = _HUB.fullmatch(uri)
    if found is None:
        raise UriRefused(
            f"{shown(uri)!r} is not hf://datasets/org/name@commit or hf://datasets/org/name@commit/config, with all 40 "
            "hex digits of the commit: a branch or a tag may change under a job"
        )
    org, name = found["org"], found["name"]
    if f"{org}/{name}" not in settings.hub_datasets and f"{org}/*" not in settings.hub_datasets:
        allowed = ", ".join(settings.hub_datasets) or "none"
        raise UriRefused(
            f"dataset {org}/{name} is not among those of the hub that may be read ({allowed}): add it to "
            "SPICE_HUB_DATASETS"
        )
    return DatasetUri("hf", uri.rstrip("/"), _check_format(format, "parquet", name), None, many=True)


def _uploaded(uri: str, format: str | None, project_id: uuid.UUID | None) -> DatasetUri:  # noqa: A002
    """An uploaded file. One of another project is refused in the same words as one that does not exist."""
    found = upload_of(uri)
    if found is None or project_id not in (None, found.project_id):
        raise UriRefused(
            f"{shown(uri)!r} is no uploaded file of this project: name one by the uri of GET /files, or upload it "
            "(POST /files)"
        )
    named, compression = _from_suffix(found.name)
    return DatasetUri("upload", uri, _check_format(format, named, found.name), compression)


def split_uri(uri: str, written: str = "file:///..., https://... or s3://...") -> SplitResult:
    """Take a URI apart; UriRefused if it is malformed, or if other parsers might read it in another way.

    Args:
        uri: What the client sent.
        written: How a URI of this kind may be written, for whoever sent one without a scheme.
    """
    if len(uri) > _LONGEST_URI:
        raise UriRefused(f"the URI is {len(uri)} characters long, the limit is {_LONGEST_URI}: give a shorter one")
    # urlsplit drops tabs and newlines silently and other parsers read a backslash as a slash: what was checked
    # would not be what is opened.
    if any(character <= " " or character in "\\\x7f" for character in uri):
        raise UriRefused(
            f"URI {uri!r} contains white space, a control character or a backslash: percent-encode it, "
            "as in %20 for a space"
        )
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        raise UriRefused(f"{shown(uri)!r} is not a URI ({error}): give one such as file:///data/x.jsonl") from None
    if not parts.scheme:
        raise UriRefused(f"{shown(uri)!r} has no scheme: write it as {written}")
    return parts


def shown(uri: str) -> str:
    """The URI as a message may show it: without what may be a password."""
    head, at, tail = uri.rpartition("@")
    return f"...@{tail}" if at and "://" in head else uri


def _check_scheme(scheme: str, allowed: Sequence[str]) -> Scheme:
    if scheme not in allowed or scheme not in get_args(Scheme):
        offered = ", ".join(f"{name}://" for name in allowed)
        hint = " (plain http can be changed on its way: serve the file over https)" if scheme == "http" else ""
        raise UriRefused(f"scheme {scheme!r} is not allowed{hint}: use one of {offered}")
    return cast("Scheme", scheme)


def local_path(uri: str, parts: SplitResult) -> Path:
    """The absolute path that a ``file`` URI names; UriRefused if it names none."""
    if parts.netloc not in {"", "localhost"}:
        raise UriRefused(
            f"{shown(uri)!r} names the host {parts.hostname!r}: a local file has three slashes, file:///path"
        )
    if parts.query or parts.fragment:
        raise UriRefused(f"{uri!r} has a '?' or '#' part: write %3F or %23 if the file's name has one")
    path = unquote(parts.path)
    if not path.startswith("/") or "\0" in path:
        raise UriRefused(f"{uri!r} is not an absolute path: write it as file:///path/to/file")
    return Path(path)


def inside_roots(path: Path, settings: Settings) -> Path:
    """The path, free of symlinks; UriRefused if it lies outside ``allowed_roots``."""
    if not settings.allowed_roots:
        raise UriRefused(f"{str(path)!r}: file:// is closed here, SPICE_ALLOWED_ROOTS names no directory")
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError):  # a loop of symlinks, a name over the file system's limit
        raise UriRefused(f"{str(path)!r} cannot be resolved to a file: give its real path") from None
    if settings.artifacts_path is not None and resolved.is_relative_to((settings.artifacts_path / UPLOADS).resolve()):
        raise UriRefused(f"{str(path)!r} lies among uploaded files: name it by the uri of GET /files")
    if kept := next((one for one in own_directories(settings) if resolved.is_relative_to(one)), None):
        raise UriRefused(
            f"{str(path)!r} lies in {kept}, where the service keeps what it read and made: name the file that it was "
            "made from, or copy it elsewhere"
        )
    # What is free of symlinks lies in a root as it is written, or else in what the root is a symlink to.
    if any(
        resolved.is_relative_to(root) or resolved.is_relative_to(Path(root).resolve())
        for root in settings.allowed_roots
    ):
        return resolved
    roots = ", ".join(settings.allowed_roots)
    raise UriRefused(
        f"{str(path)!r} is outside the directories that may be read ({roots}): move it there, or add its "
        "directory to SPICE_ALLOWED_ROOTS"
    )


def own_directories(settings: Settings) -> tuple[Path, ...]:
    """Where the service keeps copies and results of all projects, free of symlinks: no project may name them."""
    places = (settings.artifacts_path, settings.cache_path)
    return tuple(place.resolve() for place in places if place is not None)


def _check_host(parts: SplitResult, settings: Settings) -> None:
    if "@" in parts.netloc:
        raise UriRefused(
            f"the URI of host {parts.hostname!r} carries credentials, which would be stored and logged: "
            "use a presigned URL, or s3:// with credentials on the worker"
        )
    if not urlunsplit(parts).isascii():
        raise UriRefused(f"{urlunsplit(parts)!r} has characters beyond ASCII: percent-encode them (host in punycode)")
    host = parts.hostname
    if not host:
        raise UriRefused(f"{urlunsplit(parts)!r} names no host: write it as https://host/path")
    if not settings.https_allow_private and _plainly_private(host):
        raise UriRefused(
            f"host {host!r} is a private, loopback or link-local address: only public hosts may be read over https"
        )


def _plainly_private(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return not ipaddress.ip_address(name.split("%")[0]).is_global
    except ValueError:
        return False  # a name: what it resolves to is checked when the worker connects


def check_bucket(uri: str, parts: SplitResult, settings: Settings) -> None:
    """Refuse an ``s3`` URI whose bucket is not in ``s3_buckets``, or that names no key in it."""
    if parts.netloc not in settings.s3_buckets:
        allowed = ", ".join(settings.s3_buckets) or "none"
        raise UriRefused(
            f"bucket {shown(parts.netloc)!r} is not among the allowed ones ({allowed}): add it to SPICE_S3_BUCKETS"
        )
    if parts.query or parts.fragment or not parts.path.strip("/"):
        raise UriRefused(f"{uri!r} is not s3://bucket/key with a key free of '?' and '#'")
    if {".", ".."} & set(parts.path.split("/")):  # a server, or a proxy before it, may walk them, out of the bucket
        raise UriRefused(f"{uri!r} has a '.' or '..' between slashes: give the object's key as it is listed")


def _from_suffix(name: str) -> tuple[Format | None, Compression | None]:
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression:
        suffixes.pop()
    return (_FORMATS.get(suffixes[-1]) if suffixes else None), compression


def _check_format(asked: str | None, named: Format | None, name: str) -> Format:
    known = get_args(Format)
    if asked is not None:
        if asked not in known:
            raise UriRefused(f"format {asked!r} is unknown: use one of {', '.join(known)}")
        return cast("Format", asked)
    if named is None:
        raise UriRefused(f"{_tells_no_format(name)}, or give the format as one of {', '.join(known)}")
    return named


def _tells_no_format(name: str) -> str:
    return (
        f"{PurePosixPath(name).name!r} does not tell the format: it should end in one of {', '.join(_FORMATS)} "
        "(with .gz or .zst after it if compressed)"
    )
