"""The fixtures themselves: each test has a database and a queue of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis
from sqlalchemy import create_engine, text

if TYPE_CHECKING:
    from app.core.settings import Settings


@pytest.mark.parametrize("round_", [1, 2])
def test_every_test_starts_from_a_migrated_database_and_an_empty_queue(settings: Settings, round_: int) -> None:
    engine = create_engine(str(settings.database_url))
    client = redis.Redis.from_url(str(settings.redis_url))
    with engine.begin() as connection:
        names = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
        assert "alembic_version" in names
        assert "left_behind" not in names
        connection.execute(text("CREATE TABLE left_behind ()"))
    engine.dispose()
    assert client.dbsize() == 0, f"round {round_} sees what another has written"
    client.set("left_behind", 1)
    client.close()
