"""The client's types, held to the service's OpenAPI document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, get_origin, get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

from app.core.contracts.job_request import EXAMPLE_REQUEST
from app.jobs.schemas import EXAMPLE_JOB
from spice_client import models, requests

if TYPE_CHECKING:
    from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[3]
ANSWERS = {
    "Baseline": models.Baseline,
    "Certificate": models.Certificate,
    "ConflictStatistics": models.ConflictStatistics,
    "Conflicts": models.Conflicts,
    "Curve": models.Curve,
    "CurveLine": models.CurveLine,
    "DatasetResponse": models.Dataset,
    "FieldError": models.FieldError,
    "Histogram": models.Histogram,
    "JobResponse": models.Job,
    "JobResult": models.JobResult,
    "ScheduleFound": models.ScheduleFound,
    "ProblemDetails": models.ProblemDetails,
    "Progress": models.Progress,
    "Rejected": models.Rejected,
    "RejectedList": models.RejectedRows,
    "RejectedReason": models.RejectedReason,
    "PartitionsGuarantee": models.PartitionsGuarantee,
    "WebhookDelivery": models.WebhookDelivery,
    "Worker": models.Worker,
}
REQUESTS = {
    "AdapterRef": requests.AdapterReference,
    "Webhook": requests.Webhook,
    "Budget": requests.BudgetSize,
    "Columns": requests.ColumnNames,
    "DatasetRef": requests.DatasetSource,
    "Gradients": requests.GradientSettings,
    "JobRequest": requests.JobRequest,
    "ModelRef": requests.ModelSource,
    "Schedule": requests.TrainingSchedule,
    "SelectionSpec": requests.SelectionSettings,
}


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    document = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    schemas: dict[str, Any] = document["components"]["schemas"]
    return schemas


def schema(schemas: dict[str, Any], name: str) -> dict[str, Any]:
    """A schema by its name, which FastAPI lengthens where requests and responses differ."""
    found: dict[str, Any] = schemas.get(name) or schemas[f"{name}-Output"]
    return found


def takes(schema: dict[str, Any]) -> set[str]:
    """The JSON types of a schema: a reference to an object is an object."""
    if "anyOf" in schema:
        return set().union(*(takes(one) for one in schema["anyOf"]))
    if "$ref" in schema or "allOf" in schema:
        return {"object or string"}
    if "const" in schema or "enum" in schema:
        return {"string"}
    return {schema["type"]} if "type" in schema else {"anything"}


def agree(theirs: set[str], ours: set[str]) -> bool:
    """Whether every type that the service may send is one that the client reads."""
    objects = {"object", "string"} if "object or string" in ours | theirs else set[str]()
    return theirs - {"object or string"} <= ours | objects | ({"integer"} if "number" in ours else set())


@pytest.mark.parametrize("name", ANSWERS)
def test_the_client_reads_what_the_service_sends(schemas: dict[str, Any], name: str) -> None:
    theirs = schema(schemas, name)["properties"]
    model: type[BaseModel] = ANSWERS[name]
    ours = model.model_json_schema()["properties"]
    assert set(ours) == set(theirs) - {"links"}, "the client builds its paths itself"
    for field, read in ours.items():
        assert agree(takes(theirs[field]), takes(read)), f"{name}.{field}: {theirs[field]} is read as {read}"


@pytest.mark.parametrize("name", REQUESTS)
def test_the_client_s_requests_are_those_of_the_service(schemas: dict[str, Any], name: str) -> None:
    theirs = schemas.get(name) or schemas[f"{name}-Input"]
    kind = REQUESTS[name]
    ours = get_type_hints(kind, include_extras=True)
    assert set(ours) == set(theirs["properties"])
    needed = {field for field, hint in ours.items() if kind.__total__ and get_origin(hint) is not NotRequired}
    assert needed == set(theirs.get("required", ()))


def test_pydantic_can_check_a_request_by_its_type() -> None:
    """As a Prefect flow or a FastAPI endpoint does that takes one as an argument."""
    adapter = TypeAdapter(requests.JobRequest)
    assert adapter.validate_python(EXAMPLE_REQUEST) == EXAMPLE_REQUEST
    with pytest.raises(ValidationError, match="model"):
        adapter.validate_python({key: value for key, value in EXAMPLE_REQUEST.items() if key != "model"})


def test_the_example_job_is_a_job_and_comes_back_as_it_was_sent() -> None:
    job = models.Job.model_validate(EXAMPLE_JOB)
    assert job.selection.budget.fraction == 0.1
    assert job.document() == EXAMPLE_JOB
    assert not job.ended


def test_a_field_of_a_newer_service_is_kept() -> None:
    job = models.Job.model_validate({**EXAMPLE_JOB, "mood": "good"})
    assert job.mood == "good"  # type: ignore[attr-defined]
    assert job.document()["mood"] == "good"
