"""The checked-in contract, and the check that shows what would break a client of it."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from scripts.openapi_contract import DOCUMENT, breaks, main, render

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD: dict[str, Any] = json.loads(DOCUMENT.read_text())


def test_the_contract_is_checked_in_and_breaks_nothing_of_itself() -> None:
    assert DOCUMENT.read_text() == render()
    assert breaks(OLD, OLD) == []


def test_every_problem_that_is_announced_is_in_the_documentation() -> None:
    operations = [operation for path in OLD["paths"].values() for operation in path.values()]
    answers = [answer for operation in operations for answer in operation["responses"].values()]
    documents = [answer.get("content", {}).get("application/problem+json", {}) for answer in answers]
    announced = {(kind, one["value"]["status"]) for all_ in documents for kind, one in all_.get("examples", {}).items()}
    assert len(announced) > 15
    page = (DOCUMENT.parent / "api.md").read_text(encoding="utf-8").splitlines()
    for kind, status in announced:
        assert any(line.startswith(f"| {status} |") and f"`{kind}`" in line for line in page), kind


def schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    return dict(document["components"]["schemas"])[name]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda new: new["paths"].pop("/jobs/{job_id}/curve"), "GET /jobs/{job_id}/curve is gone"),
        (lambda new: schema(new, "JobResponse")["properties"].pop("stage"), "has no stage any more"),
        (lambda new: schema(new, "JobResult")["properties"].pop("log_det"), "has no result.log_det any more"),
        (lambda new: schema(new, "JobRequest")["properties"].pop("name"), "can't have name any more"),
        (lambda new: schema(new, "JobRequest")["required"].append("name"), "must have name now"),
        (lambda new: schema(new, "State")["enum"].remove("failed"), None),
        (lambda new: schema(new, "ModelRef")["properties"]["dtype"]["enum"].remove("bfloat16"), "dtype=bfloat16"),
        (lambda new: new["paths"]["/jobs"]["get"]["parameters"][0].update(required=True), "must be sent now"),
        (lambda new: new["paths"]["/jobs"]["post"]["responses"].pop("202"), "status 202"),
    ],
)
def test_what_would_break_a_client_is_named(change: Callable[[dict[str, Any]], object], message: str | None) -> None:
    new = copy.deepcopy(OLD)
    change(new)
    found = breaks(OLD, new)
    if message is None:
        assert not found  # a state that does not come any more surprises nobody
    else:
        assert any(message in one for one in found), found


def test_what_is_added_breaks_nobody(tmp_path: Path) -> None:
    older = copy.deepcopy(OLD)
    older["paths"].pop("/jobs/{job_id}/events")
    schema(older, "JobRequest")["properties"].pop("metadata")
    schema(older, "JobResponse")["properties"].pop("updated_at")
    (tmp_path / "older.json").write_text(json.dumps(older))
    assert main(["--against", str(tmp_path / "older.json")]) == 0
