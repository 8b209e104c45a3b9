"""Serve the page: one document at `/`, its parts under `/web/`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi.responses import FileResponse

from app.web.parts import HEADERS, PLACE, Parts

if TYPE_CHECKING:
    from fastapi import FastAPI

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types figures"
)
"""No inline code, nothing from other hosts; only `figures.js` parses markup."""


def install(app: FastAPI) -> None:
    """Serve the page from `app`. It needs no key, because it holds no data."""

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PLACE / "index.html", headers={**HEADERS, "Content-Security-Policy": POLICY})

    app.mount("/web", Parts(directory=PLACE), name="web")
