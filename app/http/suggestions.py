"""What a client may have meant by a field that does not exist."""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ALIKE = 0.65
"""Of two names, from 0 to 1, as `difflib` measures it."""
DEPTH = 6
"""Of the bodies that the service takes; none refers to itself."""


def meant(body: Any, path: Sequence[str]) -> str | None:  # noqa: ANN401 - an annotation
    """The field of a body that a path most likely stands for, None if none is like it.

    Args:
        body: The body's type.
        path: Where the client has put a field that is not known, by names from the outermost on.

    Returns:
        The whole path, such as `selection.conflict_penalty`. What is in the same place goes before what is not.
    """
    known = _paths(body)
    beside = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == ".".join(path[:-1])}
    everywhere = {one.rpartition(".")[2]: one for one in reversed(known)}
    if close := get_close_matches(path[-1], beside, n=1, cutoff=ALIKE):
        return beside[close[0]]
    close = get_close_matches(path[-1], everywhere, n=1, cutoff=ALIKE)
    return everywhere[close[0]] if close else None


@lru_cache
def _paths(body: Any) -> tuple[str, ...]:  # noqa: ANN401 - an annotation
    return tuple(_fields(body, "", DEPTH))


def _fields(kind: Any, before: str, depth: int) -> Iterator[str]:  # noqa: ANN401 - an annotation
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield f"{before}{name}"
            if depth:
                yield from _fields(field.annotation, f"{before}{name}.", depth - 1)
    else:
        for part in get_args(kind):
            yield from _fields(part, before, depth)
