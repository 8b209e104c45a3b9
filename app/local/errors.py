"""What keeps the embedded servers from starting."""

from __future__ import annotations


class LocalServerError(RuntimeError):
    """The service cannot start on this machine; the message says what is in the way and what to do."""
