"""`Idempotency-Key`: a POST that is sent again gets the answer of the first, and nothing is done twice.

The answer is kept in the transaction of what it tells of: there is never one without the other, whenever the process
dies. The libraries for this keep answers in a store, or a transaction, of their own, so this is ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Header, Request, Response

from app.db import idempotency
from app.dependencies import SessionDep, SettingsDep  # noqa: TC001 - FastAPI reads the annotations
from app.problems import IdempotencyKeyInUse, IdempotencyKeyReused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel
    from sqlalchemy.orm import Session

REPLAYED = "Idempotency-Replayed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a POST is answered with.

    Attributes:
        body: The document.
        status: HTTP status.
        headers: Besides those of the document.
        then: Done once all is committed, the first time only.
    """

    body: BaseModel
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    then: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class Once:
    """A POST that is carried out once for each key of a project."""

    session: Session
    key: str | None
    fingerprint: bytes
    max_age_s: float

    def answer(self, work: Callable[[], Answer]) -> Response:
        """Do the work and commit it with its answer, or give the answer of the first time.

        What the work raises is the answer this time, and nothing is kept: the request may be sent again.

        Args:
            work: Does all of it in the session without a commit.

        Raises:
            IdempotencyKeyInUse: The first request is still being carried out.
            IdempotencyKeyReused: The first request was another.
        """
        if self.key is None:
            return self._done(work())
        if not idempotency.lock(self.session, self.key):
            raise IdempotencyKeyInUse("The first request with this Idempotency-Key is still being carried out.")
        kept = idempotency.find(self.session, self.key, self.max_age_s)
        if kept is None:
            answer = work()
            body = answer.body.model_dump_json()
            idempotency.keep(
                self.session, self.key, self.fingerprint, status=answer.status, headers=answer.headers, body=body
            )
            return self._done(answer)
        if kept.fingerprint != self.fingerprint:
            raise IdempotencyKeyReused(
                "This Idempotency-Key came with another request: send a new key with a new request."
            )
        headers = {**kept.headers, REPLAYED: "true"}
        return Response(kept.body, kept.status, headers, media_type="application/json")

    def _done(self, answer: Answer) -> Response:
        self.session.commit()
        answer.then()
        return Response(
            answer.body.model_dump_json(), answer.status, dict(answer.headers), media_type="application/json"
        )


async def _fingerprint(request: Request) -> bytes:
    """Of the request: equal for bodies that are the same JSON."""
    body = await request.body()
    with contextlib.suppress(ValueError, RecursionError):  # empty, or refused later on
        body = json.dumps(json.loads(body), sort_keys=True).encode()
    asked = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    return hashlib.sha256(asked + body).digest()


async def _once(
    session: SessionDep,
    settings: SettingsDep,
    fingerprint: Annotated[bytes, Depends(_fingerprint)],
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
    return Once(session, idempotency_key, fingerprint, settings.idempotency_max_age_s)


OnceDep = Annotated[Once, Depends(_once)]
