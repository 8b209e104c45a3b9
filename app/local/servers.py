"""The two embedded servers over one data directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from app.local.lock import DataDirLock
from app.local.postgres import EmbeddedPostgres
from app.local.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class EmbeddedServers:
    """PostgreSQL and Valkey, real ones, on loopback ports with random passwords.

    Restart-safe: killed at any moment, alone or with everything else, they start again over the same directory
    with every committed row. They end when this process ends.

    Example:
        >>> with EmbeddedServers(Path("var")) as servers:
        ...     engine = sqlalchemy.create_engine(servers.database_url)
        ...     queue = redis.from_url(servers.redis_url)
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        """Describe the servers; nothing is started.

        Args:
            data_dir: Where `postgres/`, `valkey/` and `logs/` go; any length of path.
            durable: False gives up surviving a power cut for speed; for tests.
        """
        self.data_dir = data_dir.expanduser().resolve()
        logs = self.data_dir / "logs"
        self.postgres = EmbeddedPostgres(self.data_dir / "postgres", logs / "postgres.log", durable=durable)
        self.valkey = EmbeddedValkey(self.data_dir / "valkey", logs / "valkey.log")
        self._lock = DataDirLock(self.data_dir)

    @property
    def database_url(self) -> str:
        """SQLAlchemy's URL of the service's database."""
        return self.postgres.url()

    @property
    def redis_url(self) -> str:
        """The URL of the queue's server."""
        return self.valkey.url

    def lock(self) -> None:
        """Lock the data directory, before anything is started.

        Raises:
            DataDirInUseError: Another service runs on the directory.
        """
        self._lock.acquire()

    def start(self) -> Self:
        """Lock the data directory, unless that is done, and start both servers.

        Raises:
            DataDirInUseError: Another service runs on the directory.
            LocalServerError: A server does not start.
        """
        self.lock()
        try:
            self.postgres.start()
            self.valkey.start()
        except BaseException:
            self.stop()
            raise
        return self

    def revive(self) -> list[str]:
        """Start again, on its old port, each server that has died.

        Returns:
            Names of those that were dead.
        """
        revived = []
        for name, server in (("PostgreSQL", self.postgres), ("Valkey", self.valkey)):
            if not server.alive:
                server.start()
                revived.append(name)
        return revived

    def stop(self) -> None:
        """Shut both down in order and unlock the data directory. Does nothing where nothing runs."""
        try:
            self.valkey.stop()
            self.postgres.stop()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
