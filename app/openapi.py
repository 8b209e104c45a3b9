"""Worked examples and problem documents for the OpenAPI page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        value: dict[str, Any] = {"type": kind.type_, "title": kind.title, "status": kind.status, "detail": detail}
        if kind.status == 422:  # noqa: PLR2004 - the one problem that names fields
            field, _, message = detail.partition(": ")
            value["errors"] = [{"field": field, "message": message}]
        responses[kind.status] = {
            "description": kind.title,
            "content": {"application/problem+json": {"schema": {"$ref": PROBLEM}, "example": value}},
        }
    return responses


def announce_problems(app: FastAPI) -> None:
    """Have the schema say what problems look like: those of FastAPI's own that no endpoint names.

    A request that does not fit its schema is a 422 in the service's own shape, and a body that can't be read is a 400.
    """
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        for operation in (method for path in schema["paths"].values() for method in path.values()):
            invalid = operation["responses"].get("422")
            if invalid is not None and "HTTPValidationError" in str(invalid):
                operation["responses"]["422"] = _problem("The request is not valid; `errors` names the fields.")
            if "requestBody" in operation:
                operation["responses"].setdefault("400", _problem("The body can't be read."))
        for unused in ("HTTPValidationError", "ValidationError"):
            schema.get("components", {}).get("schemas", {}).pop(unused, None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/problem+json": {"schema": {"$ref": PROBLEM}}}}
