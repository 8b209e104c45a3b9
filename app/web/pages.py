"""Serve the page: one document at `/`, its parts under `/web/`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    import os

    from fastapi import FastAPI
    from starlette.responses import Response
    from starlette.types import Scope

PLACE: Final = Path(__file__).parent
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types figures"
)
"""Nothing inline, nothing from other hosts; the one place that parses markup is `figures.js`."""

HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class _Parts(StaticFiles):
    """The static files; never the Python beside them."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if Path(path).suffix in {".css", ".js", ".svg"} else ("", None)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def install(app: FastAPI) -> None:
    """Serve the page from `app`. It needs no key: it holds none of anybody's data."""

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PLACE / "index.html", headers=HEADERS)

    app.mount("/web", _Parts(directory=PLACE), name="web")
