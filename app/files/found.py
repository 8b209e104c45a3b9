"""Walk the allowed directories for datasets and models, as far as a person would look through them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.uris.datasets import UriRefused, inside_roots, is_dataset_file, own_directories
from app.core.uris.models import GGUF

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.core.settings import Settings

DEEPEST = 4
MOST_LOOKED_AT = 5_000
MOST_TOLD = 200
CONFIG = "config.json"
"""What a directory holds that is a saved model."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file or a directory that a job may name.

    Attributes:
        uri: As a job names it.
        name: Its path from the allowed directory on, that directory's own name first.
        bytes: Size of the file; None for a directory.
    """

    uri: str
    name: str
    bytes: int | None


@dataclass(slots=True)
class Found:
    """What was found.

    Attributes:
        datasets: Files of rows, those of the first allowed directory first, in each by name.
        models: Saved models and GGUF files, likewise.
        complete: Whether all was looked at and is told.
    """

    datasets: list[Place] = field(default_factory=list)
    models: list[Place] = field(default_factory=list)
    complete: bool = True


def look(settings: Settings) -> Found:
    """Datasets and models in the allowed directories, without hidden ones, what links lead out to, and what is ours."""
    found, seen, ours = Found(), 0, own_directories(settings)
    if "file" not in settings.allowed_schemes:
        return found
    for root in map(Path, settings.allowed_roots):
        for entry, depth in _entries(root, 1, ours):
            seen += 1
            if seen > MOST_LOOKED_AT:
                found.complete = False
                break
            _sort(found, root, entry, depth, settings)
    for kind in ("datasets", "models"):
        places: dict[str, Place] = {}
        for place in getattr(found, kind):  # of what two allowed directories hold, the first one names it
            places.setdefault(place.uri, place)
        found.complete = found.complete and len(places) <= MOST_TOLD
        setattr(found, kind, list(places.values())[:MOST_TOLD])
    return found


def _entries(directory: Path, depth: int, ours: tuple[Path, ...]) -> Iterator[tuple[os.DirEntry[str], int]]:
    """What lies in a directory and below; of a saved model, the directory alone; nothing of the service's own."""
    if directory.resolve() in ours:
        return
    try:
        with os.scandir(directory) as entries:
            here = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda one: one.name)
    except OSError:
        return  # one that this process may not read offers nothing
    for entry in here:
        yield entry, depth
        if depth < DEEPEST and entry.is_dir(follow_symlinks=False) and not _is_model(entry):
            yield from _entries(Path(entry.path), depth + 1, ours)


def _is_model(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and Path(entry.path, CONFIG).is_file()


def _sort(found: Found, root: Path, entry: os.DirEntry[str], depth: int, settings: Settings) -> None:
    path = Path(entry.path)
    name = f"{root.name}/{path.relative_to(root)}"
    if _is_model(entry):
        found.models.append(Place(path.as_uri(), name, None))
        return
    is_gguf = entry.name.lower().endswith(GGUF)
    if not (is_gguf or is_dataset_file(entry.name)) or not entry.is_file():
        found.complete = found.complete and not (depth == DEEPEST and entry.is_dir(follow_symlinks=False))
        return
    try:
        inside_roots(path, settings)
    except UriRefused:
        return  # a link that leads out: a job that names it would be refused
    place = Place(path.as_uri(), name, entry.stat().st_size)
    (found.models if is_gguf else found.datasets).append(place)
