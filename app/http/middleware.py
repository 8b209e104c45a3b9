"""Middleware for all answers: common headers, gzip, and HEAD requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyio import CancelScope
from anyio.lowlevel import checkpoint
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COMMON_HEADERS: Final = {"Spice-Api-Version": "1", "X-Content-Type-Options": "nosniff"}
"""`nosniff`: a browser does not take a client's text for a page or a script."""


class CommonHeaders:
    """Adds `COMMON_HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(COMMON_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Gzip(GZipMiddleware):
    """Compresses answers for clients that accept gzip, except event streams and files that are served in ranges."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave downloads uncompressed: byte ranges count bytes of the file, and Parquet is compressed already."""
        app = self.app if scope["type"] != "http" or scope["path"].endswith("/subset") else super().__call__
        await app(scope, receive, send)


class Head:
    """Answers HEAD with the headers of GET. The body is not computed and no stream is opened."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the GET until its headers are sent, without its Range header (RFC 9110, 14.2)."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        asked = {**scope, "method": "GET", "headers": headers}

        async def send_head(message: Message) -> None:
            await send(message)
            await send({"type": "http.response.body"})
            answering.cancel()
            await checkpoint()  # the cancelled scope stops the application here

        with CancelScope() as answering:
            await self._app(asked, receive, send_head)
        scope["route"] = asked.get("route")  # the request log reads the route
