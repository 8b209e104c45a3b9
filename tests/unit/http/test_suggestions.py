"""What is told of a field that does not exist."""

from __future__ import annotations

import pytest

from app.core.contracts.job_request import JobRequest
from app.http.suggestions import meant


@pytest.mark.parametrize(
    ("path", "likely"),
    [
        (["selection", "conflict_penality"], "selection.conflict_penalty"),
        (["conflict_penalty"], "selection.conflict_penalty"),
        (["budget"], "selection.budget"),
        (["selection", "budget", "fracton"], "selection.budget.fraction"),
        (["selection", "budget", "ClipLength", "fracton"], "selection.budget.fraction"),
        (["datset"], "dataset"),
        (["model", "max_lenght"], "model.max_length"),
        (["dataset", "url"], "dataset.uri"),
        (["zebra"], None),
    ],
)
def test_a_misspelt_or_misplaced_field_is_recognised(path: list[str], likely: str | None) -> None:
    assert meant(JobRequest, path) == likely


def test_what_has_no_fields_has_none_that_was_meant() -> None:
    assert meant(None, ["uri"]) is None
