"""Static files of the pages, and their headers."""

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
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Parts(StaticFiles):
    """Serves the static files of a directory, and never the Python files beside them."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """The path of a file, if its suffix is one that pages use."""
        return super().lookup_path(path) if Path(path).suffix in {".css", ".js", ".svg", ".woff2"} else ("", None)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, with the headers of all static files."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
