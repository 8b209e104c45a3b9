"""A subset of a million indices is stored and streamed, and memory does not notice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psutil

from app.core.db.selections import MAIN
from app.core.db.tables import Job, Selection
from app.results.formats import FORMATS
from tests.integration.many_picks import CHUNK_ROWS, MILLION, store_million

if TYPE_CHECKING:
    import uuid

    from app.core.db.engine import Sessions

# The picks take 40 MB as numbers and 150 MB as JSON lines; a chunk of them takes 2 MB.
MEMORY = 24 * 1024 * 1024


def add_million(sessions: Sessions) -> uuid.UUID:
    with sessions() as session:
        job = Job(request={})
        session.add(job)
        session.flush()
        session.add(
            Selection(job_id=job.id, label=MAIN, method="spice", selected=MILLION, log_det=0.0, conflicts={}, curve={})
        )
        session.flush()
        store_million(session, job.id)
        session.commit()
        return job.id


def test_a_million_indices_stream_with_bounded_memory_in_every_format(sessions: Sessions) -> None:
    job_id = add_million(sessions)
    process = psutil.Process()
    for known in FORMATS:
        parts = known.write(sessions, job_id)
        size = sum(len(next(parts)) for _ in range(5))  # what the first chunks load and cache is not counted
        before = process.memory_info().rss
        grown = 0
        for part in parts:
            size += len(part)
            assert len(part) < MEMORY / 2
            grown = max(grown, process.memory_info().rss - before)
        assert grown < MEMORY, f"{known.name}: {grown / 2**20:.1f} MiB"
        assert size > MILLION, known.name
    lines = b"".join(FORMATS[1].write(sessions, job_id)).splitlines()
    assert [json.loads(lines[place])["index"] for place in (0, CHUNK_ROWS, MILLION - 1)] == [0, CHUNK_ROWS, MILLION - 1]
    assert len(lines) == MILLION
