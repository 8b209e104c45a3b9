"""What POSTs write: each with the answer to its Idempotency-Key in one transaction, in groups where many come at once.

An answer is kept in the transaction of what it tells of: there is never one without the other, whenever the process
dies. The libraries for this keep answers in a store, or a transaction, of their own, so this is ours.
"""

from __future__ import annotations

from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fastapi import Response
from fastapi_problem.error import StatusProblem

from app.http import idempotent_answers, new_rows
from app.http.group_commit import GroupCommit
from app.http.idempotent_answers import Given
from app.http.problems import POSTGRES_AWAY, IdempotencyKeyInUse, IdempotencyKeyReused

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pydantic import BaseModel
    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions
    from app.core.lifecycle.leases import Waiting
    from app.core.queue import TaskQueue
    from app.http.principal import Principal

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
        queued: A new row, to be put into the queue once all is committed.
    """

    body: BaseModel
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    queued: Waiting | None = None


@dataclass(frozen=True, slots=True)
class Post(Generic[Row]):
    """What a POST does.

    Attributes:
        work: Does all of it in a session without a commit, but for the insertion of a new row that it returns, which
            is done for all of a group at once. A problem that it raises, before it writes, is the answer this time,
            and nothing is kept: the request may be sent again.
        tell: The answer, once the row has what the schema sets by default.
        key: Its Idempotency-Key, if it has one.
        fingerprint: Of the request, if it has a key.
        context: The request's.
    """

    work: Callable[[Session], Row]
    tell: Callable[[Row], Answer]
    key: str | None
    fingerprint: bytes
    context: Context = field(default_factory=copy_context)


class Posts:
    """Carries out the POSTs of one API process."""

    def __init__(self, queue: TaskQueue, max_age_s: float) -> None:
        """An answer is given again for `max_age_s` seconds."""
        self._queue = queue
        self._max_age_s = max_age_s
        self._groups = GroupCommit[Post[Any], Response]()
        self._keys: set[tuple[uuid.UUID, str | None]] = set()

    def alone(self, sessions: Sessions, post: Post[Any]) -> Response:
        """Do a post's work and commit it with its answer, or give the answer of the first time.

        Raises:
            IdempotencyKeyInUse: The first request is still being carried out.
            IdempotencyKeyReused: The first request was another.
            StatusProblem: As the work raises it.
        """
        (outcome,) = self._carry_out(sessions, [post])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def in_group(self, principal: Principal, sessions: Sessions, post: Post[Any]) -> Response:
        """The same, in one transaction with others of the project that come meanwhile.

        For work that waits for no row that others hold for long: the others would wait as well.
        """
        key = principal.project_id, post.key
        if key in self._keys:
            raise IdempotencyKeyInUse(UNDER_WAY)
        if post.key is not None:
            self._keys.add(key)
        try:
            return await self._groups.carried_out(
                (principal.project_id, principal.own_quotas), post, partial(self._carry_out, sessions)
            )
        finally:
            self._keys.discard(key)

    def _carry_out(self, sessions: Sessions, posts: Sequence[Post[Any]]) -> list[Response | Exception]:
        """What comes of each post: all in one transaction or, if that fails, each in its own."""
        try:
            done = _committed(sessions, posts, self._max_age_s)
        except Exception as error:  # noqa: BLE001 - raised again for each request
            if len(posts) == 1 or isinstance(error, POSTGRES_AWAY):  # it may have committed: nothing is done twice
                return [error] * len(posts)
            return [outcome for post in posts for outcome in self._carry_out(sessions, [post])]
        self._queue.put_new_or_leave([new for _, new in done if new is not None])
        return [outcome for outcome, _ in done]


def _committed(
    sessions: Sessions, posts: Sequence[Post[Any]], max_age_s: float
) -> list[tuple[Response | StatusProblem, Waiting | None]]:
    """What comes of each post, and the row that goes to the queue then."""
    with sessions() as session:
        held = idempotent_answers.lock(session, [post.key for post in posts if post.key is not None])
        given = idempotent_answers.find(session, held, max_age_s)
        rows = [_replayed_or_done(session, post, held, given) for post in posts]
        new_rows.insert_new(session, rows)
        session.flush()  # what work has added by itself
        answers = [
            row if isinstance(row, Response | StatusProblem) else post.tell(row)
            for post, row in zip(posts, rows, strict=True)
        ]
        bodies = [answer.body.model_dump_json() if isinstance(answer, Answer) else "" for answer in answers]
        idempotent_answers.keep(
            session,
            [
                Given(post.key, post.fingerprint, answer.status, dict(answer.headers), body)
                for post, answer, body in zip(posts, answers, bodies, strict=True)
                if isinstance(answer, Answer) and post.key is not None
            ],
        )
        if any(isinstance(answer, Answer) for answer in answers):
            session.commit()
    return [
        (_response(answer.status, answer.headers, body), answer.queued)
        if isinstance(answer, Answer)
        else (answer, None)
        for answer, body in zip(answers, bodies, strict=True)
    ]


def _replayed_or_done(session: Session, post: Post[Any], held: Collection[str], given: Mapping[str, Given]) -> object:
    """The answer of the first time, the problem that there is, or what the work returns."""
    first = given.get(post.key) if post.key is not None else None
    if post.key is not None and post.key not in held:
        return IdempotencyKeyInUse(UNDER_WAY)
    if first is not None and first.fingerprint != post.fingerprint:
        return IdempotencyKeyReused(ANOTHER)
    if first is not None:
        return _response(first.status, {**first.headers, REPLAYED: "true"}, first.body)
    try:
        row: object = post.context.run(post.work, session)
    except StatusProblem as problem:
        return problem
    return row


def _response(status: int, headers: Mapping[str, str], body: str) -> Response:
    return Response(body, status, dict(headers), media_type="application/json")
