"""The whole service on one machine: PostgreSQL and Valkey out of wheels, API and worker beside them."""

from app.local.errors import LocalServerError
from app.local.servers import EmbeddedServers

__all__ = ["EmbeddedServers", "LocalServerError"]
