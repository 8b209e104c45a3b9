"""A limit on the size of request bodies: most are small JSON documents that are held in memory, one is a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class MostBytes:
    """A limit, and what a client that exceeds it is told.

    Attributes:
        bytes: The limit.
        told: What it is the limit of, the setting, and what to do.
    """

    bytes: int
    told: str


class BodyLimit:
    """Stops reading a body at its limit, with or without a Content-Length."""

    def __init__(self, app: ASGIApp, usual: MostBytes, of_paths: Mapping[str, MostBytes]) -> None:
        """Limit the bodies of an application's requests.

        Args:
            app: The application.
            usual: The limit of most requests.
            of_paths: Limits of the paths that have their own.
        """
        self._app = app
        self._usual = usual
        self._of_paths = of_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. Reading past the limit raises an HTTPException, which is answered as `BodyTooLarge`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._of_paths.get(scope["path"], self._usual)
        length = Headers(scope=scope).get("content-length", "")
        read = int(length) if length.isdecimal() else 0
        counts = read == 0

        async def receive_some() -> Message:
            nonlocal read
            if read > limit.bytes:  # a Content-Length over the limit is refused before the body is read
                raise _too_large(read, limit)
            message = await receive()
            if counts:
                read += len(message.get("body", b""))
                if read > limit.bytes:
                    raise _too_large(read, limit)
            return message

        await self._app(scope, receive_some, send)


def _too_large(read: int, limit: MostBytes) -> HTTPException:
    return HTTPException(
        TOO_LARGE,
        f"body: has at least {read} bytes, and {limit.bytes} are what {limit.told}.",
        headers={"Connection": "close"},  # or the server would receive the rest of the body for nothing
    )
