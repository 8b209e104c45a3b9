"""A limit on the size of request bodies: every body here is a small JSON document that is held in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOO_LARGE = 413


class BodyLimit:
    """Stops reading a body at `max_bytes`, with or without a Content-Length."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. Reading past the limit raises an HTTPException, which is answered as `BodyTooLarge`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        read = int(length) if length.isdecimal() else 0
        counts = read == 0

        async def receive_some() -> Message:
            nonlocal read
            if read > self._max_bytes:  # a Content-Length over the limit is refused before the body is read
                raise self._too_large(read)
            message = await receive()
            if counts:
                read += len(message.get("body", b""))
                if read > self._max_bytes:
                    raise self._too_large(read)
            return message

        await self._app(scope, receive_some, send)

    def _too_large(self, read: int) -> HTTPException:
        return HTTPException(
            TOO_LARGE,
            f"body: has at least {read} bytes, and {self._max_bytes} are what a request may have "
            "(SPICE_REQUEST_MAX_BYTES): send less; data is read from the dataset's URI.",
            headers={"Connection": "close"},  # or the server would receive the rest of the body for nothing
        )
