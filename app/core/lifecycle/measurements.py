"""How long stages took, kept for the estimates of later jobs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select

from app.core.db.tables import Measurement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

MOST_LOOKED_AT = 64
"""The newest measurements say how fast a device is now."""
KEPT = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Kind:
    """What must be the same for two durations to be comparable.

    Attributes:
        stage: The stage of a job, or a part of it.
        model: Revision of the model; empty where none is used.
        device: What did the work, as in `workers.models.device.device_name`.
        variant: Whatever else decides how long a row or a token takes.
    """

    stage: str
    model: str
    device: str
    variant: str


@dataclass(frozen=True, slots=True)
class Took:
    """How long a stage took.

    Attributes:
        rows: Rows that it worked on.
        tokens: Their tokens.
        size: What its time grows with, in a unit of the stage's own.
        seconds: Its time.
    """

    rows: int
    tokens: int
    size: float
    seconds: float


def note(session: Session, kind: Kind, took: Took) -> None:
    """Keep a measurement, in the caller's transaction."""
    session.execute(insert(Measurement).values({**asdict(kind), **asdict(took)}))


def newest(session: Session, kind: Kind) -> Sequence[Took]:
    """The measurements of a kind, the newest first."""
    rows = session.execute(
        select(Measurement.rows, Measurement.tokens, Measurement.size, Measurement.seconds)
        .where(
            Measurement.stage == kind.stage,
            Measurement.model == kind.model,
            Measurement.device == kind.device,
            Measurement.variant == kind.variant,
        )
        .order_by(Measurement.id.desc())
        .limit(MOST_LOOKED_AT)
    ).all()
    return [Took(row.rows, row.tokens, row.size, row.seconds) for row in rows]


def forget(session: Session) -> None:
    """Delete what is too old to say how fast a device is, and commit."""
    session.execute(delete(Measurement).where(Measurement.at < func.now() - KEPT))
    session.commit()
