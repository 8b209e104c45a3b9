"""Look up the key of a token, and remember it for some seconds.

A revoked key therefore opens the service for up to `SPICE_AUTH_CACHE_S` seconds more.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cachetools import TTLCache

from app.access import keys
from app.access.secrets import digest_of, prefix_of, same_digest
from app.http.principal import Principal

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from app.core.db.tables import ApiKey, Project

REMEMBERED = 10_000


class KeyRing:
    """The remembered keys of one API process. Safe to use from any thread."""

    def __init__(self, sessions: Sessions, remember_s: float) -> None:
        self._sessions = sessions
        self._known: TTLCache[bytes, Principal] = TTLCache(maxsize=REMEMBERED, ttl=remember_s)
        self._lock = threading.Lock()

    def remembered(self, token: str) -> Principal | None:
        """The principal of a token, if it was looked up in the last seconds."""
        with self._lock:
            return self._known.get(digest_of(token))

    def find(self, token: str) -> Principal | None:
        """The principal of a token, looked up in Postgres; None if no valid key has this token.

        Raises:
            SQLAlchemyError: Postgres does not answer.
        """
        prefix = prefix_of(token)
        if prefix is None:
            return None
        digest = digest_of(token)
        with self._sessions() as session:
            found = keys.usable(session, prefix)
            if found is None or not same_digest(found.ApiKey.secret_hash, digest):
                return None
            key: ApiKey = found.ApiKey
            project: Project = found.Project
            keys.note_use(session, key.id)
        principal = Principal(key.id, key.project_id, key.scope, project.requests_per_minute)
        with self._lock:
            self._known[digest] = principal
        return principal
