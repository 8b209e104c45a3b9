"""Errors as `application/problem+json` (RFC 9457). A `type` is stable: clients may switch on it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi_problem.error import (
    ConflictProblem,
    ForbiddenProblem,
    NotFoundProblem,
    StatusProblem,
    UnauthorisedProblem,
    UnprocessableProblem,
)
from fastapi_problem.handler import add_exception_handler, new_exception_handler
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from starlette.responses import JSONResponse
from starlette.routing import Match

from app.http.middleware import COMMON_HEADERS
from app.http.suggestions import meant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import Scope


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
QUOTA_RETRY_AFTER_S = 60
REPAIR_RETRY_S = 3
BODY_UNREADABLE = (
    "body: must be JSON in UTF-8, not compressed, nested no deeper than some hundred levels, and with no number of "
    "more than 4,300 digits"
)
POSTGRES_AWAY = (OperationalError, InterfaceError, NoConnectionFree)
"""What SQLAlchemy raises where Postgres does not answer. Whether a commit has happened is not known then."""


class FieldError(BaseModel):
    """One field at fault."""

    field: str = Field(description="Path in the request, such as `selection.budget.fraction`.")
    message: str = Field(description="What is wrong with it, and what would be right.")


class ProblemDetails(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(description="Stable identifier of the kind of error.")
    title: str = Field(description="What kind of error this is.")
    status: int | None = Field(default=None, description="HTTP status, where it is an answer's.")
    detail: str | None = Field(default=None, description="What happened this time, and what to do.")
    errors: list[FieldError] | None = Field(default=None, description="The fields at fault.")


class Unauthenticated(UnauthorisedProblem):
    """The request has no key, or one that opens nothing."""

    type_ = "unauthenticated"
    title = "An API key is needed"

    def __init__(self, detail: str, error: str = "") -> None:
        challenge = 'Bearer realm="spice"' + (f', error="{error}"' if error else "")
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class ScopeMissing(ForbiddenProblem):
    """The key may not do this."""

    type_ = "scope-missing"
    title = "The API key may not do this"


class OtherSite(ForbiddenProblem):
    """A page of another site asks a service that asks for no keys."""

    type_ = "other-site"
    title = "Pages of other sites may not use this service"


class RateLimited(StatusProblem):
    """The key has sent too many requests."""

    type_ = "rate-limited"
    title = "Too many requests"
    status = 429


class QuotaExceeded(StatusProblem):
    """The project has used up what it may use for now."""

    type_ = "quota-exceeded"
    title = "The project's quota is used up"
    status = 429

    def __init__(self, field: str, message: str, limit: str) -> None:
        super().__init__(
            f"{field}: {message}",
            headers={"Retry-After": str(QUOTA_RETRY_AFTER_S)},
            limit=limit,
            errors=[FieldError(field=field, message=message).model_dump()],
        )


class TooLargeForQuota(QuotaExceeded):
    """More than the project may use at any time."""

    type_ = "too-large-for-quota"
    title = "This is more than the project may use"
    status = 403


class JobNotFound(NotFoundProblem):
    """No job has this id."""

    type_ = "job-not-found"
    title = "There is no such job"


class ProofNotFound(NotFoundProblem):
    """No proof has this id."""

    type_ = "proof-not-found"
    title = "There is no such proof"


class ProofNotReady(ConflictProblem):
    """The proof has no result (yet)."""

    type_ = "proof-not-ready"
    title = "The proof has no result"


class ScoresNotReady(ConflictProblem):
    """The scores of a proof are not there (yet)."""

    type_ = "scores-not-ready"
    title = "The scores are not there"


class ScoresDamaged(StatusProblem):
    """The file of a proof's scores is not what was published."""

    type_ = "scores-damaged"
    title = "The scores are damaged"
    status = 500

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}. Submit the proof again: its runs are kept and not trained again. Its verdicts are whole."
        )


class ProofNotFinal(ConflictProblem):
    """A proof that has not ended can't be deleted."""

    type_ = "proof-not-final"
    title = "The proof has not ended"


class ProofFinished(ConflictProblem):
    """A finished proof can't be cancelled."""

    type_ = "proof-finished"
    title = "The proof has ended already"


class DatasetNotFound(NotFoundProblem):
    """No dataset has this id."""

    type_ = "dataset-not-found"
    title = "There is no such dataset"


class UploadNotFound(NotFoundProblem):
    """The project has no uploaded file with this id."""

    type_ = "upload-not-found"
    title = "There is no such uploaded file"


class UploadInUse(ConflictProblem):
    """An uploaded file that open work reads can't be deleted."""

    type_ = "upload-in-use"
    title = "The uploaded file is in use"


class PreviewNotFound(NotFoundProblem):
    """No preview of this dataset has this id."""

    type_ = "preview-not-found"
    title = "There is no such preview"


class InvalidRequest(UnprocessableProblem):
    """The request cannot be carried out as it is; `errors` names the fields."""

    type_ = "invalid-request"
    title = "The request is not valid"

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(
            "; ".join(f"{error.field}: {error.message}" for error in errors),
            errors=[error.model_dump() for error in errors],
        )


class JobFinished(ConflictProblem):
    """A finished job can't be cancelled."""

    type_ = "job-finished"
    title = "The job has ended already"


class JobNotFinal(ConflictProblem):
    """A job that has not ended can't be deleted."""

    type_ = "job-not-final"
    title = "The job has not ended"


class DatasetInUse(ConflictProblem):
    """A dataset that is being read, or that open jobs read, can't be deleted."""

    type_ = "dataset-in-use"
    title = "The dataset is in use"


class IdempotencyKeyInUse(ConflictProblem):
    """The first request with this key has no answer yet."""

    type_ = "idempotency-key-in-use"
    title = "The first request is being carried out"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Retry-After": "1"})


class IdempotencyKeyReused(UnprocessableProblem):
    """The key came with another request before."""

    type_ = "idempotency-key-reused"
    title = "The Idempotency-Key belongs to another request"


class ResultNotReady(ConflictProblem):
    """The job has no result, or not yet."""

    type_ = "result-not-ready"
    title = "The job has no result"


class EstimateNotFound(NotFoundProblem):
    """No estimate has this id."""

    type_ = "estimate-not-found"
    title = "There is no such estimate"


class NotRunnable(UnprocessableProblem):
    """A job of this request would fail: the problem is the one that the job would have."""

    type_ = "not-runnable"
    title = "A job of this request would fail"

    def __init__(self, problem: Mapping[str, Any], errors: Sequence[FieldError] = ()) -> None:
        self.type_ = str(problem.get("type", type(self).type_))
        self.title = str(problem.get("title", type(self).title))
        super().__init__(problem.get("detail"), errors=[error.model_dump() for error in errors])


class StatisticsMissing(NotFoundProblem):
    """The job was finished before statistics were kept."""

    type_ = "statistics-missing"
    title = "The job has no statistics"


class FigureNotFound(NotFoundProblem):
    """The job has no such figure."""

    type_ = "figure-not-found"
    title = "There is no such figure"


class RowsGone(NotFoundProblem):
    """The picked rows are not kept any more."""

    type_ = "rows-gone"
    title = "The rows are gone"


class RowsDamaged(StatusProblem):
    """A file of a job's rows is not what was published, and could not be made again."""

    type_ = "rows-damaged"
    title = "The rows are damaged"
    status = 500

    def __init__(self, what: str, why_not: str) -> None:
        super().__init__(
            f"{what}. It could not be made again: {why_not}. Submit the job again, which uses what is there of its "
            "sketches; its indices are whole."
        )


class RowsInRepair(StatusProblem):
    """A file of a job's rows is not what was published, and a worker makes it again."""

    type_ = "rows-in-repair"
    title = "The rows are being made again"
    status = 503

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}. A worker makes it again: send the request again.", headers={"Retry-After": str(REPAIR_RETRY_S)}
        )


class NotAcceptable(StatusProblem):
    """None of the formats that the client accepts can be produced."""

    type_ = "not-acceptable"
    title = "No acceptable format"
    status = 406


class BodyUnreadable(StatusProblem):
    """The request's body can't be taken apart."""

    type_ = "body-unreadable"
    title = "The body can't be read"
    status = 400

    def __init__(self, _cause: str = "", **_context: Any) -> None:  # noqa: ANN401 - whatever the handler passes
        super().__init__(BODY_UNREADABLE)


class NothingHere(StatusProblem):
    """No route has this path."""

    type_ = "http-not-found"
    title = "There is nothing at this path"
    status = 404

    def __init__(self, _cause: str = "", **_context: Any) -> None:  # noqa: ANN401 - whatever the handler passes
        super().__init__("Is the URL right? GET /docs lists every path.")


class NotDoneHere(StatusProblem):
    """A route has this path, but not for this method."""

    type_ = "http-method-not-allowed"
    title = "This can't be done at this path"
    status = 405

    def __init__(self, _cause: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(
            "The header Allow names the methods of this path; GET /docs says what each does.", headers=headers
        )


class BodyTooLarge(StatusProblem):
    """The request's body is longer than any that makes sense."""

    type_ = "body-too-large"
    title = "The request is too large"
    status = 413


class RangeNotSatisfiable(StatusProblem):
    """The file has no such bytes."""

    type_ = "range-not-satisfiable"
    title = "The file has no such range"
    status = 416

    def __init__(self, asked: str, size: int) -> None:
        super().__init__(
            f"Range: {asked[:100]!r} begins beyond the end of the file, which has {size} bytes: ask for less, or send "
            "no Range for all of it.",
            headers={"Content-Range": f"bytes */{size}"},
        )


class Unavailable(StatusProblem):
    """A server that this one needs does not answer."""

    type_ = "unavailable"
    title = "The service is not ready"
    status = 503


class DatabaseAway(Unavailable):
    """Postgres does not answer, or can't carry out a statement now. What was not committed has not happened."""

    def __init__(self) -> None:
        super().__init__(
            "Postgres does not answer: send the request again (see GET /readyz).", headers={"Retry-After": "5"}
        )


class InternalError(StatusProblem):
    """A fault of the service. The cause is in its log, not in the answer."""

    type_ = "internal-error"
    title = "The service failed"
    status = 500

    def __init__(self, _cause: str = "", **_context: Any) -> None:  # noqa: ANN401 - whatever the handler passes
        super().__init__("The fault is in the service's log; the request may be sent again.")


def answer(problem: StatusProblem) -> JSONResponse:
    """A problem as a response, for middleware, whose errors the application does not handle."""
    return JSONResponse(
        problem.marshal(), problem.status, {**(problem.headers or {}), "content-type": "application/problem+json"}
    )


def _one_line(record: logging.LogRecord) -> bool:
    """A foreseen problem is a line of the log; only a fault that nobody foresaw has a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, StatusProblem):
        record.msg, record.args, record.exc_info = f"{error.title}: {error.detail}", (), None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def install(app: FastAPI, logger: logging.Logger) -> None:
    """Answer every error of `app` with a problem document."""
    logger.addFilter(_one_line)
    add_exception_handler(
        app,
        new_exception_handler(
            logger=logger,
            unhandled_wrappers={
                "default": InternalError,
                "400": BodyUnreadable,
                "404": NothingHere,
                "405": NotDoneHere,
                "413": BodyTooLarge,
            },
            request_validation_handler=_validation,
            post_hooks=[_allow_all_routes, _end_connection],
        ),
        generic_swagger_defaults=False,
    )

    async def database_away(_request: Request, error: Exception) -> JSONResponse:
        logger.warning("Postgres does not answer, which a request is told: %s", error)
        return answer(DatabaseAway())

    for kind in POSTGRES_AWAY:
        app.add_exception_handler(kind, database_away)


def _allow_all_routes(content: dict[str, Any], request: Request, response: Response) -> tuple[dict[str, Any], Response]:
    """Name the methods of all routes of a path in `Allow`; Starlette names those of the first."""
    if "Allow" in response.headers:
        asked = {method: {**request.scope, "method": method} for method in METHODS}
        allowed = [method for method in METHODS if any(_answers(route, asked[method]) for route in request.app.routes)]
        response.headers["Allow"] = ", ".join([*allowed, *(["HEAD"] if "GET" in allowed else [])])
    return content, response


def _end_connection(content: dict[str, Any], _request: Request, response: Response) -> tuple[dict[str, Any], Response]:
    """After a fault of the service end the connection: what of the request was not read would be taken for another.

    Such an answer is made outside of all middleware, so it gets the common headers here.
    """
    if response.status_code == InternalError.status:
        response.headers.update({**COMMON_HEADERS, "Connection": "close"})
    return content, response


def _answers(route: BaseRoute, scope: Scope) -> bool:
    return route.matches(scope)[0] is Match.FULL


def _validation(_handler: object, request: Request, error: RequestValidationError) -> InvalidRequest:
    field = getattr(request.scope.get("route"), "body_field", None)
    body = field.field_info.annotation if field is not None else None
    return InvalidRequest(*(field_error(item, body) for item in error.errors()))


def field_error(item: Mapping[str, Any], body: Any = None) -> FieldError:  # noqa: ANN401 - an annotation
    """A pydantic error as a client sees it; `loc` begins with the part of the request: body, query, path.

    Args:
        item: The error.
        body: The type of the body that it is of, whose fields are what may have been meant.
    """
    where = item["loc"][1:] if item["loc"] and item["loc"][0] in {"body", "query", "path"} else item["loc"]
    message = str(item["msg"]).removeprefix("Value error, ")
    value = item.get("input")
    if item["type"] == "extra_forbidden":
        likely = meant(body, [part for part in where if isinstance(part, str)])
        message = "there is no such field" + (f": did you mean {likely}?" if likely else "")
    elif isinstance(value, str | int | float | bool):
        message = f"{message} (got {str(value)[:200]!r})"
    elif isinstance(value, bytes):  # FastAPI has not parsed it
        message = "is not taken for JSON: send it with the header Content-Type: application/json"
    return FieldError(field=".".join(str(part) for part in where) or "body", message=message)
