"""API keys for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.access import keys, projects
from app.access.secrets import make_secret
from app.core.db.tables import Scope

if TYPE_CHECKING:
    from datetime import datetime

    from app.core.db.engine import Sessions


def make_key(
    sessions: Sessions, project: str, scope: Scope = Scope.WRITE, expires_at: datetime | None = None
) -> dict[str, str]:
    """A new key of a project, made if new, as a header."""
    secret = make_secret()
    with sessions() as session:
        owner = projects.find(session, project) or projects.create(session, project)
        keys.create(session, owner, secret, "test", scope, expires_at)
    return {"Authorization": f"Bearer {secret.token}"}
