"""Who makes a request, and which requests need nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from app.core.db.tables import DEFAULT_PROJECT, Scope

if TYPE_CHECKING:
    import uuid

    from fastapi import Request

OPEN_PATHS: Final = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json", "/favicon.ico"})
"""Probes, the description of the API, and the page that asks for a key."""
OPEN_BELOW: Final = ("/web/",)
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
NO_KEY: Final = (
    "Send `Authorization: Bearer spice_...`; client and shell take the key from SPICE_API_KEY. `spice keys create` on "
    "the service's side makes one."
)
PRINCIPAL: Final = "spice.principal"
"""Where a request's scope holds its principal."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The key of a request.

    Attributes:
        key_id: The key; None where the service asks for none.
        project_id: What it belongs to.
        scope: What it may do.
        requests_per_minute: Its project's own limit; None is the settings'.
    """

    key_id: uuid.UUID | None
    project_id: uuid.UUID
    scope: Scope
    requests_per_minute: int | None = None


ANYBODY = Principal(None, DEFAULT_PROJECT, Scope.ADMIN)
"""Whoever reaches a service that asks for no keys."""


def principal_of(request: Request) -> Principal:
    """Who makes a request, as the middleware that authenticates it has found."""
    return cast("Principal", request.scope[PRINCIPAL])


def is_open(path: str) -> bool:
    """Whether a path asks for no key."""
    return path in OPEN_PATHS or path.startswith(OPEN_BELOW)
