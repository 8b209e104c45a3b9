"""Entity tags for polling and caching, made of what identifies a version: no body is needed to know its tag."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, Header, Request, Response, status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.core.db.tables import Dataset, Job, Proof

POLLED: Final = "private, no-cache"
FOREVER: Final = "private, max-age=86400, immutable"
"""A result never changes; a day bounds how long a cache keeps what was deleted here."""


class NotModified(Exception):
    """The client already has this version."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__()
        self.headers = headers


class Validators:
    """The request's conditions and the answer's headers."""

    def __init__(self, request: Request, response: Response, if_none_match: str | None) -> None:
        self._request = request
        self._response = response
        self._known = if_none_match

    def polled(self, *rows: Job | Dataset | Proof, also: Iterable[object] = ()) -> dict[str, str]:
        """Tag an answer by the versions of the rows that it shows.

        The tag is weak: the answer also shows the workers of a job, which are not part of the version.

        Returns:
            The headers, for an endpoint that makes the response itself.

        Raises:
            NotModified: The client has this version.
        """
        known = [f"{row.id} {row.updated_at.isoformat()}" for row in rows]
        return self._tag(f'W/"{_digest(*known, *also, made_by())}"', POLLED)

    def result(self, job: Job) -> None:
        """Tag a part of a finished job's result, which may be compressed on its way.

        Raises:
            NotModified: The client has it.
        """
        self.download(job, "gzip" in self._request.headers.get("accept-encoding", ""))

    def download(self, job: Job, *variant: object) -> dict[str, str]:
        """Tag a file of a finished job's result; the headers, as the endpoint makes the answer itself.

        Raises:
            NotModified: The client has it.
        """
        asked = (self._request.url.path, self._request.url.query)
        return self._tag(f'"{_digest(job.id, job.finished_at, *asked, *variant, made_by())}"', FOREVER)

    def _tag(self, tag: str, cache_control: str) -> dict[str, str]:
        headers = {"ETag": tag, "Cache-Control": cache_control}
        if _matches(self._known, tag):
            raise NotModified(headers)
        self._response.headers.update(headers)
        return headers


def _matches(condition: str | None, tag: str) -> bool:
    """`If-None-Match`, by weak comparison."""
    if condition is None:
        return False
    known = {part.strip().removeprefix("W/") for part in condition.split(",")}
    return "*" in known or tag.removeprefix("W/") in known


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


@cache
def made_by() -> str:
    """Versions of the packages that write answers: another version may write the same result in other bytes."""
    return f"{version('spice-select')} {version('pyarrow')}"


async def not_modified(_request: Request, error: Exception) -> Response:
    """Answer NotModified."""
    assert isinstance(error, NotModified)  # noqa: S101 - the handler of nothing else
    return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=error.headers)


async def _validators(
    request: Request,
    response: Response,
    if_none_match: Annotated[
        str | None, Header(description="The `ETag` of the client's copy; 304 if the copy is up to date.")
    ] = None,
) -> Validators:
    return Validators(request, response, if_none_match)


ValidatorsDep = Annotated[Validators, Depends(_validators)]
