"""Who makes a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.core.db.tables import DEFAULT_PROJECT, Scope

if TYPE_CHECKING:
    import uuid


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
