"""Worked examples and problem documents for the OpenAPI page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from app.http.principal import NO_KEY, is_open
from app.http.problems import (
    BODY_UNREADABLE,
    BodyTooLarge,
    BodyUnreadable,
    DatabaseAway,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidRequest,
    QuotaExceeded,
    RateLimited,
    ScopeMissing,
    Unauthenticated,
)

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi_problem.error import StatusProblem

PROBLEM = "#/components/schemas/ProblemDetails"
Responses = dict[int | str, dict[str, Any]]


def example(status: int, description: str, value: object, media_type: str = "application/json") -> Responses:
    """A response with a worked example."""
    return {status: {"description": description, "content": {media_type: {"example": value}}}}


def empty(status: int, description: str) -> Responses:
    """A response without a body."""
    return {status: {"description": description}}


def problems(*kinds: tuple[type[StatusProblem], str]) -> Responses:
    """The problems that an endpoint answers with, each with an example of its detail."""
    responses: Responses = {}
    for kind, detail in kinds:
        _announce(responses, kind.status, kind, detail)
    return responses


def announce_problems(app: FastAPI) -> None:
    """Add the answers that no endpoint declares: of keys, conditional requests, repeated POSTs and FastAPI itself."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        schema = make()
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                _complete(operation, behind_a_key=not is_open(path))
        components = schema.setdefault("components", {})
        components["securitySchemes"] = {KEY: KEY_SCHEME}
        for unused in ("HTTPValidationError", "ValidationError"):
            components.get("schemas", {}).pop(unused, None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


KEY: Final = "API key"
KEY_SCHEME: Final = {
    "description": "`spice_...`, made on the service's side by `spice keys create`.",
    "scheme": "bearer",
    "type": "http",
}
KEYED: Final = (
    (Unauthenticated, NO_KEY),
    (ScopeMissing, "POST /jobs needs the scope write, and the key has read."),
    (RateLimited, "The key may send 600 requests a minute: wait 12 s, or ask the service's operator for more (...)."),
    (DatabaseAway, "Postgres does not answer: send the request again (see GET /readyz)."),
)
"""Of every operation that asks for a key."""
ONCE: Final = (
    (IdempotencyKeyInUse, "The first request with this Idempotency-Key is still being carried out."),
    (IdempotencyKeyReused, "This Idempotency-Key came with another request: send a new key with a new request."),
)
"""Of every operation that takes an `Idempotency-Key`."""


def _complete(operation: dict[str, Any], *, behind_a_key: bool) -> None:
    responses = operation["responses"]
    headers = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "header"}
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]  # the service has its own shape of validation errors
        _announce(responses, "422", InvalidRequest, "job_id: Input should be a valid UUID (got 'x')")
    if "requestBody" in operation:
        _announce(responses, "400", BodyUnreadable, BODY_UNREADABLE)
    if "requestBody" in operation or "idempotency-key" in headers:
        _announce(responses, "413", BodyTooLarge, "body: has at least 2097152 bytes, and 1048576 are what ...")
    if "if-none-match" in headers:
        responses["304"] = {"description": "Nothing has changed since the answer with this `ETag`."}
    for kind, detail in (*(KEYED if behind_a_key else ()), *(ONCE if "idempotency-key" in headers else ())):
        _announce(responses, str(kind.status), kind, detail)
    operation["responses"] = dict(sorted(responses.items()))
    if behind_a_key:
        operation["security"] = [{KEY: []}]


def _announce(responses: dict[Any, Any], status: int | str, kind: type[StatusProblem], detail: str) -> None:
    """Add a problem to an operation's answers, beside the others of its status."""
    value: dict[str, Any] = {"type": kind.type_, "title": kind.title, "status": kind.status, "detail": detail}
    if issubclass(kind, InvalidRequest | QuotaExceeded):
        field, _, message = detail.partition(": ")
        value["errors"] = [{"field": field, "message": message}]
    answer = responses.setdefault(status, {"content": {}})
    content = answer["content"].setdefault("application/problem+json", {"schema": {"$ref": PROBLEM}, "examples": {}})
    content["examples"].setdefault(kind.type_, {"summary": kind.title, "value": value})
    answer["description"] = "; or: ".join(example["summary"] for example in content["examples"].values())
