"""Which proxy models a client may name: as in `app.core.uris.datasets`, settings decide before anything is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from app.core.uris.datasets import UriRefused, check_bucket, inside_roots, local_path, shown, split_uri

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from app.core.settings import Settings

ModelScheme = Literal["file", "s3", "hf"]

GGUF = ".gguf"
WRITTEN = "file:///directory, s3://bucket/prefix or hf://org/name@commit"
_HUB = re.compile(r"hf://(?P<org>[A-Za-z0-9][\w.-]*)/(?P<name>[A-Za-z0-9][\w.-]*)@(?P<revision>[0-9a-f]{40})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelUri:
    """A model URI that the settings allow.

    Attributes:
        scheme: ``file``, ``s3`` or ``hf``.
        uri: The URI normalised: absolute and free of symlinks for ``file``, without a slash at its end.
    """

    scheme: ModelScheme
    uri: str

    @property
    def is_gguf(self) -> bool:
        """Whether it names a single GGUF file and not the directory of a saved model."""
        return self.scheme != "hf" and unquote(self.uri).lower().endswith(GGUF)

    @property
    def path(self) -> Path:
        """The directory or GGUF file on this machine; ValueError if the scheme is not ``file``."""
        if self.scheme != "file":
            raise ValueError(f"{self.uri} is not on this machine")
        return Path(unquote(urlsplit(self.uri).path))

    @property
    def repository(self) -> tuple[str, str]:
        """Id and commit on the hub; ValueError if the scheme is not ``hf``."""
        found = _HUB.fullmatch(self.uri)
        if found is None:
            raise ValueError(f"{self.uri} is not on a hub")
        return f"{found['org']}/{found['name']}", found["revision"]


def check_model_uri(uri: str, settings: Settings) -> ModelUri:
    """Check a model URI against the settings.

    Args:
        uri: ``file:///directory``, ``s3://bucket/prefix`` or ``hf://org/name@commit``; the first two may also name a
            ``.gguf`` file.
        settings: ``allowed_roots``, ``s3_buckets``, ``hub_models``.

    Returns:
        The normalised URI. What it names need not exist.

    Raises:
        UriRefused: Another scheme, or a place that is not allowed.
    """
    parts = split_uri(uri, WRITTEN)
    if parts.scheme == "file":
        return _local(uri, parts, settings)
    if parts.scheme == "s3":
        check_bucket(uri, parts, settings)
        return ModelUri("s3", uri.rstrip("/"))
    if parts.scheme == "hf":
        return _on_the_hub(uri, settings)
    raise UriRefused(f"model URI {shown(uri)!r} has scheme {parts.scheme!r}: use {WRITTEN}")


def check_adapter_uri(uri: str, settings: Settings) -> Path:
    """Check the URI of an adapter: a directory inside ``allowed_roots``.

    Returns:
        The resolved path. The directory need not exist.

    Raises:
        UriRefused: Another scheme, a place outside the roots, or a file where a directory is wanted.
    """
    parts = split_uri(uri, "file:///directory")
    if parts.scheme != "file":
        raise UriRefused(
            f"adapter URI {shown(uri)!r} has scheme {parts.scheme!r}, but adapters are read from local directories "
            "only: put it into one of SPICE_ALLOWED_ROOTS and give file:///path/to/it"
        )
    path = inside_roots(local_path(uri, parts), settings)
    if path.is_file():
        raise UriRefused(f"adapter URI {uri!r} names a file: give the directory that holds adapter_config.json")
    return path


def _local(uri: str, parts: SplitResult, settings: Settings) -> ModelUri:
    path = inside_roots(local_path(uri, parts), settings)
    if path.is_file() and path.suffix.lower() != GGUF:
        raise UriRefused(f"model URI {uri!r} names a file: give the directory that holds config.json, or a {GGUF} file")
    return ModelUri("file", path.as_uri())


def _on_the_hub(uri: str, settings: Settings) -> ModelUri:
    found = _HUB.fullmatch(uri)
    if found is None:
        raise UriRefused(
            f"model URI {uri!r} is not hf://org/name@commit, with all 40 hex digits of the commit: a branch or a tag "
            "may change under a job"
        )
    org, name = found["org"], found["name"]
    if f"{org}/{name}" not in settings.hub_models and f"{org}/*" not in settings.hub_models:
        allowed = ", ".join(settings.hub_models) or "none"
        raise UriRefused(
            f"model {org}/{name} is not among those of the hub that may be read ({allowed}): add it to SPICE_HUB_MODELS"
        )
    return ModelUri("hf", uri)
