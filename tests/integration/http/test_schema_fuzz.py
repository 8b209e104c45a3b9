"""Every operation that the OpenAPI schema has, with data that fits it and data that does not: never a 500, and every
answer is one that the schema announces.

Against the service with its real Postgres and Valkey, over HTTP; whatever the schema has at the time is covered.
Seeded: the same requests each time. ``SPICE_FUZZ_EXAMPLES=500`` looks longer.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.main import create_app
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import Case
    from schemathesis.schemas import APIOperation

    from tests.integration.conftest import Service

EXAMPLES = int(os.environ.get("SPICE_FUZZ_EXAMPLES", "10"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SECONDS = 20


@pytest.fixture
def known(service: Service) -> dict[str, str]:
    """Path parameters that lead somewhere: a finished job, a registered dataset."""
    registered = service.http.post("/datasets", json={"uri": service.request()["dataset"]["uri"]})
    job = service.run(service.request(baselines=["random"]))
    assert job["state"] == "succeeded", job["error"]
    return {"job_id": job["id"], "dataset_id": registered.json()["id"]}


@pytest.fixture
def schema(service: Service, known: dict[str, str]) -> Iterator[schemathesis.BaseSchema]:  # noqa: ARG001 - first
    """The schema of a server."""
    with served(create_app(service.settings)) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.timeout(600)
def test_no_operation_fails_or_answers_what_it_did_not_announce(
    schema: schemathesis.BaseSchema, known: dict[str, str]
) -> None:
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 10
    for operation in operations:
        fuzz(operation, known)


def fuzz(operation: APIOperation[Any, Any, Any], known: dict[str, str]) -> None:
    cases = st.one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, somewhere=st.booleans())
    def send(case: Case, somewhere: bool) -> None:
        if somewhere and case.method != "DELETE":
            case.path_parameters.update({name: known[name] for name in known if name in case.path_parameters})
        case.headers["Accept"] = "application/json"  # a stream of events has no end
        case.call_and_validate(checks=CHECKS, timeout=SECONDS)

    send()
