"""A million picks of a job. Postgres makes the numbers up, which Python would take ten seconds to write out for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sqlalchemy import text

from app.core.db.selections import MAIN

if TYPE_CHECKING:
    import uuid

    from sqlalchemy.orm import Session

MILLION = 1_000_000
CHUNK_ROWS = 10_000
SCALE = 1e5
"""Ranks until a gain is half of the first."""

INSERT = text("""
    INSERT INTO selection_chunks
        (job_id, label, first_rank, row_indices, marginal_gains, epsilons, conflicts, log_det)
    SELECT :job_id, :label, chunk * :rows, array_agg(place ORDER BY place), array_agg(gain ORDER BY place),
        array_agg(zero), array_agg(zero), array_agg(log_det ORDER BY place)
    FROM generate_series(0, :chunks - 1) AS chunk,
        generate_series(chunk * :rows, chunk * :rows + :rows - 1) AS place,
        (SELECT CAST(:scale AS float8) AS scale, CAST(0 AS float8) AS zero) AS constants,
        LATERAL (SELECT scale / (scale + place) AS gain, scale * ln((scale + place + 1) / scale) AS log_det) AS numbers
    GROUP BY chunk
""")


def store_million(session: Session, job_id: uuid.UUID) -> None:
    """Insert the picks, rows 0 to 999,999 in this order, of a selection that is there without any."""
    chunks = MILLION // CHUNK_ROWS
    session.execute(INSERT, {"job_id": job_id, "label": MAIN, "rows": CHUNK_ROWS, "chunks": chunks, "scale": SCALE})


def gain(place: int) -> float:
    """The marginal gain of the pick at a place."""
    return SCALE / (SCALE + place)


def log_det(place: int) -> float:
    """The log-det of the picks up to and including that at a place."""
    return SCALE * math.log1p((place + 1) / SCALE)
