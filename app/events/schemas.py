"""Bodies of the events endpoint."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from app.core.contracts.schema import Response
from app.core.db.tables import EventKind

EXAMPLE_EVENTS: dict[str, Any] = {
    "items": [
        {
            "id": 1,
            "at": "2026-11-24T03:00:00Z",
            "kind": "state",
            "data": {"state": "queued", "cancel_requested": False, "error": None},
        },
        {
            "id": 4,
            "at": "2026-11-24T03:00:01Z",
            "kind": "state",
            "data": {"state": "running", "cancel_requested": False, "error": None},
        },
        {"id": 5, "at": "2026-11-24T03:00:02Z", "kind": "stage", "data": {"stage": "reading"}},
        {
            "id": 7,
            "at": "2026-11-24T03:00:03Z",
            "kind": "progress",
            "data": {
                "stage": "reading",
                "done": 20000,
                "total": 100000,
                "unit": "rows",
                "rate": 21012.3,
                "eta_s": 3.8,
            },
        },
    ],
    "next_after": 7,
}


class EventResponse(Response):
    """Something that happened to a job."""

    id: int = Field(description="Larger than that of any earlier event of the job.")
    at: datetime
    kind: EventKind
    data: dict[str, Any] = Field(
        description="`state`: state, cancel_requested, and the error of a failed job. `stage`: the stage that began. "
        "`progress`: the stage, and done, total, unit, rate and eta_s as in the job."
    )


class EventList(Response):
    """Events of a job in their order."""

    items: list[EventResponse]
    next_after: int = Field(description="Send it as `after` to hear what happened since.")
