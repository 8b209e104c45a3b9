"""`/jobs/{id}/events` and `/proofs/{id}/events`."""

from __future__ import annotations

import asyncio
import contextlib
import uuid  # noqa: TC003 - FastAPI reads the annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response, status
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.access.authentication import admitted_still
from app.events import repository
from app.events.feed import EVENTS_AT_ONCE
from app.events.schemas import EXAMPLE_EVENTS, EventList, EventResponse
from app.http.dependencies import SessionsDep, SettingsDep  # noqa: TC001
from app.http.media_types import most_accepted
from app.http.openapi import Responses, empty, example, problems
from app.http.problems import InvalidRequest, JobNotFound, NotAcceptable, ProofNotFound
from app.jobs.service import find_job
from app.proofs.service import find_proof

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions
    from app.core.db.tables import Job, Proof
    from app.core.settings import Settings
    from app.events.feed import EventFeed
    from app.events.repository import Event, Place

router = APIRouter()

JSON, STREAM = "application/json", "text/event-stream"
RETRY_MS = 2000
POLL_AFTER_S = 2
LAST_ID = 2**63 - 1
EXAMPLE_STREAM = (
    'retry: 2000\n\nid: 5\nevent: stage\ndata: {"id":5,"at":"2026-11-24T03:00:02Z","kind":"stage",'
    '"data":{"stage":"reading"}}\n\n'
)
ANSWERS: Responses = {
    **example(200, "The events.", EXAMPLE_EVENTS),
    **empty(204, "A stream was asked for, the job has ended, and there is nothing more to hear."),
}
ANSWERS[200]["content"][STREAM] = {"schema": {"type": "string"}, "example": EXAMPLE_STREAM}


async def _last(
    after: Annotated[int, Query(ge=0, le=LAST_ID, description="Only events with larger ids.")] = 0,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=LAST_ID, description="Instead of `after`; what EventSource sends by itself.")
    ] = None,
) -> int:
    return after if last_event_id is None else last_event_id


@dataclass(frozen=True, slots=True)
class Listener:
    """Waits for events while the request's key is valid.

    Attributes:
        feed: Source of the events.
        request: The request.
        settings: The heartbeat of the stream; the key is checked with each heartbeat.
    """

    feed: EventFeed
    request: Request
    settings: Settings

    async def after(self, place: Place) -> Sequence[Event]:
        """Wait for the events after a place; an empty list means that the job is gone or the key is no longer valid."""
        while await admitted_still(self.request):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.events_heartbeat_s):
                    return await self.feed.after(place)
        return ()


async def _listener(request: Request, settings: SettingsDep) -> Listener:
    return Listener(request.app.state.feed, request, settings)


Last = Annotated[int, Depends(_last)]
Listening = Annotated[Listener, Depends(_listener)]
Accept = Annotated[str | None, Header()]
REFUSED = (
    (NotAcceptable, "Accept is 'image/png', but events come as application/json, text/event-stream."),
    (InvalidRequest, "after: Input should be greater than or equal to 0 (got '-1')"),
)


@router.get(
    "/jobs/{job_id}/events",
    tags=["jobs"],
    summary="Follow a job",
    response_model=EventList,
    responses=ANSWERS | problems((JobNotFound, "No job has the id 7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a1."), *REFUSED),
)
def follow(
    sessions: SessionsDep, listener: Listening, response: Response, job_id: uuid.UUID, last: Last, accept: Accept = None
) -> EventList | Response:
    """State, stage and progress as they change: a stream with `Accept: text/event-stream`, else a list to poll.

    The stream begins with what there is, sends a comment now and then when nothing happens, and ends with the job (or
    the key). A client that reconnects with `Last-Event-ID` misses nothing and hears nothing twice.
    """
    return _followed(sessions, listener, response, (job_id, last), accept, find_job)


@router.get(
    "/proofs/{proof_id}/events",
    tags=["proofs"],
    summary="Follow a proof",
    response_model=EventList,
    responses=ANSWERS
    | problems((ProofNotFound, "No proof has the id 2f6a0d52-6e83-4e0b-9df2-6f4c1c0a7b11."), *REFUSED),
)
def follow_proof(
    sessions: SessionsDep,
    listener: Listening,
    response: Response,
    proof_id: uuid.UUID,
    last: Last,
    accept: Accept = None,
) -> EventList | Response:
    """State, stage and progress of a proof, as of a job: a stream, or a list to poll."""
    return _followed(sessions, listener, response, (proof_id, last), accept, find_proof)


def _followed(
    sessions: Sessions,
    listener: Listener,
    response: Response,
    place: Place,
    accept: str | None,
    find: Callable[[Session, uuid.UUID], Job | Proof],
) -> EventList | Response:
    """The events after a place, as a stream or as a list."""
    kind = most_accepted(accept, (JSON, STREAM))
    if kind is None:
        raise NotAcceptable(f"Accept is {accept!r}, but events come as {JSON}, {STREAM}.")
    with sessions() as session:
        ended = find(session, place[0]).state.final
        first = repository.after(session, place, EVENTS_AT_ONCE)
    response.headers["Vary"] = "Accept"
    if kind == JSON:
        if not ended:
            response.headers["Retry-After"] = str(POLL_AFTER_S)
        items = [EventResponse.model_validate(event) for event in first]
        return EventList(items=items, next_after=first[-1].id if first else place[1])
    if ended and not first:
        return Response(status_code=status.HTTP_204_NO_CONTENT, headers={"Vary": "Accept"})
    return EventSourceResponse(
        _stream(listener, place, first),
        headers={"Vary": "Accept"},
        ping=listener.settings.events_heartbeat_s,
        ping_message_factory=lambda: ServerSentEvent(comment="still here", sep="\n"),
        sep="\n",
    )


async def _stream(listener: Listener, place: Place, new: Sequence[Event]) -> AsyncIterator[bytes]:
    yield ServerSentEvent(retry=RETRY_MS, sep="\n").encode()
    job_id, _ = place
    new = new or await listener.after(place)
    while new:
        for event in new:
            yield _encoded(event)
        if new[-1].final:
            return
        new = await listener.after((job_id, new[-1].id))


def _encoded(event: Event) -> bytes:
    item = EventResponse.model_validate(event)
    return ServerSentEvent(item.model_dump_json(), event=item.kind, id=str(item.id), sep="\n").encode()
