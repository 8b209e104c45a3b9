"""`Idempotency-Key`: a POST that is sent again gets the answer of the first, and nothing is done twice.

What a POST writes and the answer that it gets are committed in one transaction, so there is never one without the
other, whenever the process dies. The libraries for this keep answers in a store, or a transaction, of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

from fastapi import Depends, Header, Request, Response
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from app.core.db.scoping import project_of
from app.core.db.tables import IdempotentAnswer
from app.http.dependencies import resources, sessions_of
from app.http.problems import IdempotencyKeyInUse, IdempotencyKeyReused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel
    from sqlalchemy import Delete
    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions
    from app.core.lifecycle.leases import Waiting
    from app.core.queue import TaskQueue

Row = TypeVar("Row")

REPLAYED = "Idempotency-Replayed"
UNDER_WAY = "The first request with this Idempotency-Key is still being carried out."
ANOTHER = "This Idempotency-Key came with another request: send a new key with a new request."


@dataclass(frozen=True, slots=True)
class Answer:
    """What a POST is answered with.

    Attributes:
        body: The document.
        status: HTTP status.
        headers: Besides those of the document.
        queued: New rows, to be put into the queue after the commit.
    """

    body: BaseModel
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    queued: Sequence[Waiting] = ()


@dataclass(frozen=True, slots=True)
class Once:
    """A POST that is carried out once for each key of a project.

    Attributes:
        sessions: On the rows of the request's project.
        queue: Takes the rows that the POST makes.
        max_age_s: Seconds for which an answer is given again.
        key: The Idempotency-Key, if the request has one.
        fingerprint: Hash of the request, if it has a key.
    """

    sessions: Sessions
    queue: TaskQueue
    max_age_s: float
    key: str | None
    fingerprint: bytes

    def answer(self, work: Callable[[Session], Row], tell: Callable[[Row], Answer]) -> Response:
        """Do the work and commit it with its answer, or give the answer of the first time.

        Args:
            work: Does all of it in a session, without a commit. After a problem that it raises nothing is kept: the
                request may be sent again.
            tell: The answer, once what the work has added has what the schema sets by default.

        Raises:
            IdempotencyKeyInUse: The first request is still being carried out.
            IdempotencyKeyReused: The first request was another.
            StatusProblem: As the work raises it.
        """
        with self.sessions() as session:
            first = None if self.key is None else _first_answer(session, self.key, self.max_age_s)
            if first is not None:
                if first.fingerprint != self.fingerprint:
                    raise IdempotencyKeyReused(ANOTHER)
                return _response(first.status, {**first.headers, REPLAYED: "true"}, first.body)
            row = work(session)
            session.flush()
            answer = tell(row)
            body = answer.body.model_dump_json(warnings=False)
            if self.key is not None:
                keep(session, self.key, self.fingerprint, answer, body)
            session.commit()
        if answer.queued:
            self.queue.put_or_leave(answer.queued)
        return _response(answer.status, answer.headers, body)


def _first_answer(session: Session, key: str, max_age_s: float) -> IdempotentAnswer | None:
    """The answer that a key got, if it is not too old; the key is held until the transaction ends.

    Raises:
        IdempotencyKeyInUse: Another transaction, of any API process, holds the key.
    """
    if not session.scalar(select(func.pg_try_advisory_xact_lock(_lock_number(session, key)))):
        raise IdempotencyKeyInUse(UNDER_WAY)
    session.execute(_too_old(max_age_s).where(IdempotentAnswer.key == key))
    return session.scalar(select(IdempotentAnswer).where(IdempotentAnswer.key == key))


def _lock_number(session: Session, key: str) -> int:
    name = hashlib.sha256(f"{project_of(session)} {key}".encode()).digest()
    return int.from_bytes(name[:8], signed=True)


def keep(session: Session, key: str, fingerprint: bytes, answer: Answer, body: str) -> None:
    """Keep an answer in the caller's transaction."""
    values = {"status": answer.status, "headers": dict(answer.headers), "body": body, "fingerprint": fingerprint}
    session.execute(insert(IdempotentAnswer).values(project_id=project_of(session), key=key, **values))


def forget(session: Session, max_age_s: float) -> None:
    """Delete the answers of all projects that are older than `max_age_s`, and commit."""
    session.execute(_too_old(max_age_s))
    session.commit()


def _too_old(max_age_s: float) -> Delete:
    return delete(IdempotentAnswer).where(IdempotentAnswer.created_at < func.now() - timedelta(seconds=max_age_s))


def _response(status: int, headers: Mapping[str, str], body: str) -> Response:
    return Response(body, status, dict(headers), media_type="application/json")


def _fingerprint(request: Request, body: bytes) -> bytes:
    """Hash of a request; bodies that are equal as JSON have equal hashes."""
    with contextlib.suppress(ValueError, RecursionError):  # an empty or malformed body: refused later on
        body = json.dumps(json.loads(body), sort_keys=True).encode()
    asked = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    return hashlib.sha256(asked + body).digest()


async def _once(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="Any text that is new for each request, such as a UUID. Sent again with the same body, it gets "
            "the first answer, and nothing is done twice.",
        ),
    ] = None,
) -> Once:
    body = await request.body()  # reading it refuses a body over the limit, also where the endpoint takes none
    held = resources(request)
    return Once(
        await sessions_of(request),
        held.queue,
        held.settings.idempotency_max_age_s,
        idempotency_key,
        b"" if idempotency_key is None else _fingerprint(request, body),
    )


OnceDep = Annotated[Once, Depends(_once)]
