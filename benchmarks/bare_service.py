"""What the service's speed is compared with: endpoints of FastAPI that make one statement and nothing else.

    python -m benchmarks.bare_service PORT

The same settings, the same pool of connections, the same server as the service has; no keys, no checks, no models.
"""

from __future__ import annotations

import sys
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import Body, FastAPI
from sqlalchemy import JSON, Column, MetaData, Table, Uuid, insert, select

from app.core.db.engine import make_engine
from app.core.db.tables import Job
from app.core.settings import get_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

JOBS = Job.__table__
BARE = Table("bare", MetaData(), Column("id", Uuid, primary_key=True), Column("body", JSON))


def create_app() -> FastAPI:
    """The application."""
    engine = make_engine(get_settings())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        BARE.create(engine, checkfirst=True)
        yield
        engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.get("/jobs/{job_id}")
    def poll(job_id: uuid.UUID) -> dict[str, Any]:
        """One SELECT of a job's row by its primary key, answered as it is."""
        with engine.connect() as connection:
            return dict(connection.execute(select(JOBS).where(JOBS.c.id == job_id)).mappings().one())

    @app.post("/jobs", status_code=202)
    def submit(body: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008, FAST002 - as short as it gets
        """One INSERT of the body, one COMMIT, and the body for an answer."""
        row = {"id": uuid.uuid4(), "body": body}
        with engine.begin() as connection:
            connection.execute(insert(BARE).values(row))
        return row

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(), port=int(sys.argv[1]), log_config=None, access_log=False, server_header=False)
