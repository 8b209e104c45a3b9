"""Fixtures that every test may ask for: real servers, a fresh database, settings that point at both.

Nothing starts until a test asks: unit tests run without servers.
"""

from __future__ import annotations

import gc
import os
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis
from psycopg import sql
from pydantic import RedisDsn

from app.core.settings import Settings, get_settings
from app.local import EmbeddedServers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.one_database import OneDatabase

_numbers = count(1)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their number: what a compressor writes holds the second, and the processes must agree on names."""
    return f"{argname}-of-{len(val)}" if isinstance(val, bytes) else None


def pytest_collection_finish() -> None:
    """Leave the tests and the libraries out of garbage collections: they stay, and a full one looks at all objects.

    It takes half a second with a million of them, and transformers' Trainer asks for one after each run.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_developer() -> Iterator[None]:
    """Keep SPICE_ variables of whoever runs the tests, and the width of the terminal, out of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SPICE_")]:
            patch.delenv(name)
        patch.delenv("COLUMNS", raising=False)
        yield


@pytest.fixture(autouse=True)
def _settings_of_the_test_alone() -> Iterator[None]:
    """Keep settings that another test has read out of the test; no test leaves SPICE_ variables behind."""
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()
    left = [name for name in os.environ if name.startswith("SPICE_")]
    for name in left:
        del os.environ[name]
    assert left == []


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    """A real PostgreSQL and a real Valkey for the whole run, on a directory that goes away with it."""
    with (
        tempfile.TemporaryDirectory(prefix="spice-test-") as directory,
        EmbeddedServers(Path(directory), durable=False) as running,
    ):
        yield running


@pytest.fixture(scope="session")
def _database(servers: EmbeddedServers) -> OneDatabase:
    from tests.one_database import OneDatabase  # noqa: PLC0415 - tests without a database do not need it

    return OneDatabase(servers)


@pytest.fixture(scope="session")
def shared_database(servers: EmbeddedServers) -> OneDatabase:
    """A second database, for what the tests of a module share."""
    from tests.one_database import OneDatabase  # noqa: PLC0415 - tests without a database do not need it

    return OneDatabase(servers, "shared")


@pytest.fixture
def database_url(_database: OneDatabase) -> str:
    """SQLAlchemy's URL of a migrated database in which no other test has left anything."""
    return _database.fresh()


@pytest.fixture
def empty_database_url(servers: EmbeddedServers) -> Iterator[str]:
    """SQLAlchemy's URL of a database with nothing in it, for tests of the migrations themselves."""
    name = sql.Identifier(f"empty_{next(_numbers)}")
    _administer(servers, sql.SQL("CREATE DATABASE {}").format(name))
    yield servers.postgres.url(name.as_string().strip('"'))
    _administer(servers, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def redis_url(servers: EmbeddedServers) -> str:
    """URL of an empty Valkey database."""
    return empty_queue(servers.redis_url)


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings for a service over the test's own database, queue and directory."""
    return settings_over(database_url, redis_url, tmp_path)


def settings_over(database_url: str, redis_url: str, directory: Path) -> Settings:
    """Settings for a service over these servers, whose data is in a directory."""
    return Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=RedisDsn(redis_url),
        data_dir=directory / "var",
        allowed_roots=(str(directory),),
        auth="off",
    )


def empty_queue(redis_url: str) -> str:
    """The URL, once the Valkey database that it names is empty."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    return redis_url


def _administer(servers: EmbeddedServers, statement: sql.Composed) -> None:
    with psycopg.connect(servers.postgres.url("postgres").replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement)
