"""What the pages have in common: static files and their headers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    import os

    from starlette.responses import Response
    from starlette.types import Scope

PLACE: Final = Path(__file__).parent
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",  # of a file by itself; documents have more
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Parts(StaticFiles):
    """The static files of a directory; never the Python beside them."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Where a file is, if it is of a kind that a page is made of."""
        return super().lookup_path(path) if Path(path).suffix in {".css", ".js", ".svg"} else ("", None)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, with the headers of all parts."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
