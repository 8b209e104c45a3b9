"""`Idempotency-Key`: a POST that is sent again gets the answer of the first, and nothing is done twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Header, Request, Response

from app.access.authentication import principal_of
from app.http.dependencies import resources, sessions_of
from app.http.posts import Post

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions
    from app.http.posts import Answer, Posts, Row
    from app.http.principal import Principal


@dataclass(frozen=True, slots=True)
class Once:
    """A POST that is carried out once for each key of a project; see `app.http.posts`."""

    posts: Posts
    principal: Principal
    sessions: Sessions
    key: str | None
    fingerprint: bytes

    def answer(self, work: Callable[[Session], Row], tell: Callable[[Row], Answer]) -> Response:
        """Do the work and commit it with its answer, or give the answer of the first time."""
        return self.posts.alone(self.sessions, Post(work, tell, self.key, self.fingerprint))

    async def answer_in_group(self, work: Callable[[Session], Row], tell: Callable[[Row], Answer]) -> Response:
        """The same, on a thread and in one transaction with others that come meanwhile."""
        return await self.posts.in_group(self.principal, self.sessions, Post(work, tell, self.key, self.fingerprint))


def _fingerprint(request: Request, body: bytes) -> bytes:
    """Of a request: equal for bodies that are the same JSON."""
    with contextlib.suppress(ValueError, RecursionError):  # empty, or refused later on
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
    body = await request.body()  # also where nothing of it is needed: too long a one is refused so
    fingerprint = b"" if idempotency_key is None else _fingerprint(request, body)
    return Once(
        resources(request).posts, principal_of(request), await sessions_of(request), idempotency_key, fingerprint
    )


OnceDep = Annotated[Once, Depends(_once)]
