"""How much of a request's body is read: every body here is a small JSON document that is held whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOO_LARGE = 413


class BodyLimit:
    """Stops reading at `max_bytes`, whether or not the request says how long it is."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; who reads too much gets an HTTPException, which becomes `BodyTooLarge`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = Headers(scope=scope).get("content-length", "")
        read = int(said) if said.isdecimal() else 0
        counts = read == 0

        async def receive_some() -> Message:
            nonlocal read
            if read > self._max_bytes:  # before a byte of it is in memory, where its length is said
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
            headers={"Connection": "close"},  # or the rest would be taken in, to be thrown away
        )
