"""Serve the API's reference at `/docs`: Swagger UI, with files from an installed package, not from other hosts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import fastapi_offline
from fastapi.responses import FileResponse

from app.web.parts import HEADERS, PLACE, Parts

if TYPE_CHECKING:
    from fastapi import FastAPI

SWAGGER: Final = Path(fastapi_offline.__file__).parent / "static"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""No inline code, nothing from other hosts; Swagger UI's style sheet contains its images."""


def install(app: FastAPI) -> None:
    """Serve the reference from `app`. It needs no key, because the OpenAPI document needs none."""

    @app.get("/docs", include_in_schema=False)
    def reference() -> FileResponse:
        return FileResponse(PLACE / "reference.html", headers={**HEADERS, "Content-Security-Policy": POLICY})

    app.mount("/web/swagger", Parts(directory=SWAGGER), name="swagger")
