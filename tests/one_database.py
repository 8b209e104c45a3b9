"""One migrated database that test after test has for its own: emptied in milliseconds, where making one costs a second.

PostgreSQL writes out all that it holds for each database that is made or dropped, which is most of what a test of
the service would wait for.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from app.core.db.migrate import upgrade

if TYPE_CHECKING:
    from app.local import EmbeddedServers

KEEP_SEEDS = """
CREATE SCHEMA seeds;
DO $$ DECLARE name text; filled boolean; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO filled;
        IF filled THEN EXECUTE format('CREATE TABLE seeds.%I AS TABLE public.%I', name, name); END IF;
    END LOOP;
END $$
"""
"""Copies what the migrations themselves write: their revision, the default project."""

EMPTY = """
DO $$ DECLARE name text; filled boolean; tables text[] := '{}'; BEGIN
    SET LOCAL session_replication_role = replica;  -- no trigger tells of this
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public'
        AND tablename NOT IN (SELECT tablename FROM pg_tables WHERE schemaname = 'seeds') LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO filled;
        IF filled THEN tables := tables || format('public.%I', name); END IF;
    END LOOP;
    IF tables <> '{}' THEN EXECUTE 'TRUNCATE ' || array_to_string(tables, ', ') || ' CASCADE'; END IF;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'seeds' LOOP
        EXECUTE format('DELETE FROM public.%I', name);
        EXECUTE format('INSERT INTO public.%I SELECT * FROM seeds.%I', name, name);
    END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL LOOP
        EXECUTE format('ALTER SEQUENCE public.%I RESTART', name);
    END LOOP;
END $$
"""

SHAPE = """
SELECT md5(string_agg(line, ' ' ORDER BY line)) FROM (
    SELECT format('%s %s', relname, relkind) FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT format('%s %s %s %s', attrelid, attname, atttypid, attnotnull) FROM pg_attribute
        JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT format('%s %s %s', tgrelid, tgname, tgenabled) FROM pg_trigger
    UNION ALL SELECT format('%s %s', conrelid, conname) FROM pg_constraint
    UNION ALL SELECT format('%s %s', proname, md5(prosrc)) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
) AS parts (line)
"""
"""Changes with whatever a test creates, alters or drops."""


class OneDatabase:
    """A migrated database under a new name for each test.

    What an earlier test has left running loses its connection and knows an old name alone: it reaches nothing.
    """

    def __init__(self, servers: EmbeddedServers, prefix: str = "test") -> None:
        """Describe it; nothing is made. The prefix, of its names, is its own among all databases of the servers."""
        self._servers = servers
        self._prefix = prefix
        self._numbers = count(1)
        self._name: str | None = None
        self._shape: str | None = None

    def fresh(self) -> str:
        """SQLAlchemy's URL of the database, which holds what the migrations have put there and nothing else."""
        if self._name is not None:
            if self._rename():
                with self._connect(self._name) as connection:
                    if self._asked(connection, SHAPE) == self._shape:
                        connection.execute(EMPTY)
                        return self._servers.postgres.url(self._name)
            self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self._name)))
        self._name = self._next_name()
        self._run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self._name)))
        upgrade(self._servers.postgres.url(self._name))
        with self._connect(self._name) as connection:
            connection.execute(KEEP_SEEDS)
            self._shape = self._asked(connection, SHAPE)
        return self._servers.postgres.url(self._name)

    def _rename(self) -> bool:
        """Whether it has a new name: what an earlier test has left running may connect again a moment before."""
        assert self._name is not None
        name = self._next_name()
        with self._connect("postgres") as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (self._name,)
            )
            names = (sql.Identifier(one) for one in (self._name, name))
            try:
                connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*names))
            except psycopg.errors.ObjectInUse:
                return False
        self._name = name
        return True

    def _next_name(self) -> str:
        return f"{self._prefix}_{next(self._numbers)}"

    def _connect(self, name: str) -> psycopg.Connection:
        return psycopg.connect(self._servers.postgres.url(name).replace("+psycopg", ""), autocommit=True)

    def _run(self, statement: sql.Composed) -> None:
        with self._connect("postgres") as connection:
            connection.execute(statement)

    @staticmethod
    def _asked(connection: psycopg.Connection, query: str) -> Any:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]
