"""What all answers have in common: the version of the API that they are of, gzip where it serves, and HEAD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyio import CancelScope
from anyio.lowlevel import checkpoint
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

API_VERSION: Final = "1"


class ApiVersion:
    """Says `Spice-Api-Version` with every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Spice-Api-Version"] = API_VERSION
            await send(message)

        await self._app(scope, receive, send_with_version)


class Gzip(GZipMiddleware):
    """Compresses what clients accept so, but no event stream, and nothing of which a client may ask for ranges."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass downloads on as they are: a range of bytes is one of the file, and Parquet is compressed already."""
        app = self.app if scope["type"] != "http" or scope["path"].endswith("/subset") else super().__call__
        await app(scope, receive, send)


class Head:
    """Answers HEAD as GET is answered, up to the body: of that nothing is read or computed, and no stream is begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a GET carried out until it has its headers; not of a range, which only a body has (RFC 9110, 14.2)."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        asked = {**scope, "method": "GET", "headers": headers}

        async def send_head(message: Message) -> None:
            await send(message)
            await send({"type": "http.response.body"})
            answering.cancel()
            await checkpoint()  # which ends the application here

        with CancelScope() as answering:
            await self._app(asked, receive, send_head)
        scope["route"] = asked.get("route")  # for who looks at it outside
