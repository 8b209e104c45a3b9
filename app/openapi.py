"""Worked examples and problem documents for the OpenAPI page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
