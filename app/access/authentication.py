"""Ask every request for an API key, before its body is read.

Pure ASGI. Only the paths listed here are open; any other path needs a key, also a path that does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers, MutableHeaders

from app.core.db.tables import Scope
from app.http.origin_check import refuse_other_sites
from app.http.principal import ANYBODY, NO_KEY, PRINCIPAL, READING, Principal, is_open
from app.http.problems import DatabaseAway, OtherSite, RateLimited, ScopeMissing, Unauthenticated, answer

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi_problem.error import StatusProblem
    from starlette.types import ASGIApp, Message, Receive, Send
    from starlette.types import Scope as Connection

    from app.access.key_ring import KeyRing
    from app.access.rate_limits import RateLimits
    from app.core.settings import Settings

ADMIN_PATHS: Final = frozenset({"/metrics"})
"""What tells of all projects at once."""
BAD_KEY: Final = "The key is not one of this service, or it was revoked or has expired: ask its operator for another."


@dataclass(frozen=True, slots=True)
class Access:
    """What one API process knows of keys, at `app.state.access`."""

    settings: Settings
    keys: KeyRing
    rate_limits: RateLimits


async def admitted_still(request: Request) -> bool:
    """Whether the key of a running request is still valid, for answers that stay open.

    True while Postgres does not answer.
    """
    try:
        await _principal(request.app.state.access, request.headers)
    except Unauthenticated:
        return False
    except DatabaseAway:
        return True
    return True


class Authentication:
    """The middleware that checks keys and rate limits."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Let a request pass, with its principal, or answer 401, 403, 429 or 503."""
        if scope["type"] != "http" or is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        access: Access = scope["app"].state.access
        try:
            principal = await _principal(access, Headers(scope=scope))
            _check(principal, scope["method"], scope["path"])
            told = await _counted(access, principal)
        except (Unauthenticated, OtherSite, ScopeMissing, RateLimited, DatabaseAway) as problem:
            await answer(cast("StatusProblem", problem))(scope, receive, send)
            return
        scope[PRINCIPAL] = principal
        await self._app(scope, receive, _with_headers(send, told) if told else send)


async def _principal(access: Access, headers: Headers) -> Principal:
    if access.settings.auth == "off":
        refuse_other_sites(headers)
        return ANYBODY
    scheme, _, token = headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(NO_KEY)
    principal = access.keys.remembered(token) or await _looked_up(access.keys, token)
    if principal is None:
        raise Unauthenticated(BAD_KEY, error="invalid_token")
    return principal


async def _looked_up(keys: KeyRing, token: str) -> Principal | None:
    try:
        return await to_thread.run_sync(keys.find, token)
    except SQLAlchemyError as error:
        raise DatabaseAway from error


async def _counted(access: Access, principal: Principal) -> dict[str, str]:
    limit = principal.requests_per_minute or access.settings.rate_limit_per_minute
    if principal.key_id is None or limit is None:
        return {}
    return await access.rate_limits.count(principal.key_id, limit)


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with_headers


def _check(principal: Principal, method: str, path: str) -> None:
    needed = Scope.ADMIN if path in ADMIN_PATHS else Scope.READ if method in READING else Scope.WRITE
    if not principal.scope.includes(needed):
        raise ScopeMissing(f"{method} {path} needs the scope {needed}, and the key has {principal.scope}.")
