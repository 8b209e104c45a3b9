"""Problem documents (RFC 9457) that a test expects."""

from __future__ import annotations

from typing import Any


def problem_of(response: Any, status: int) -> dict[str, Any]:
    """The problem document of an answer that must have this status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = dict(response.json())
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= set(problem)
    return problem


def fields_of(response: Any) -> dict[str, str]:
    """What a refused body is told, by field."""
    return {error["field"]: error["message"] for error in problem_of(response, 422)["errors"]}
