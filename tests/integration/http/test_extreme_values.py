"""Values at the edge of what JSON, Python and Postgres hold: refused by field, before any of them is stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from app.housekeeping.reconciler import reconcile
from tests.integration.conftest import real_rows
from tests.integration.problems import fields_of

if TYPE_CHECKING:
    from tests.integration.conftest import Service


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    """One for all tests here, which refuses most of what it is sent."""
    return shared_service


JSON = {"content-type": "application/json"}
HALF = "\ud800"  # of a surrogate pair: JSON can spell it, UTF-8 and Postgres cannot
LAST_INSTANT = "9999-12-31T23:59:59.999999Z"


def changed(body: dict[str, Any], field: str, value: object) -> bytes:
    """The body as JSON in ASCII, one field of it replaced."""
    *parents, last = field.split(".")
    place = body
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("field", "value", "named", "says"),
    [
        ("name", f"nightly {HALF}", "name", "unicode string"),
        ("metadata", {"team": HALF}, "metadata.team", "unicode string"),
        ("metadata", {HALF: "search"}, "metadata.", "unicode string"),
        ("dataset.uri", f"file:///data/{HALF}.jsonl", "dataset.uri", "surrogate"),
        ("dataset.source_column", HALF, "dataset.source_column", "unicode string"),
        (f"dataset.{HALF}", 1, "dataset", "unicode string"),
        ("model.uri", f"file:///models/{HALF}", "model.uri", "surrogate"),
        ("gradients.layers", [HALF], "gradients.layers.0", "unicode string"),
        ("webhook", {"url": f"https://example.org/{HALF}"}, "webhook.url", "surrogate"),
        ("name", "x" * 201, "name", "at most 200 characters"),
        ("metadata", {"team": "x" * 1001}, "metadata.team", "at most 1000 characters"),
        ("expires_at", "9999-12-31T23:59:59-12:00", "expires_at", "must lie before the year 10000"),
        ("timeout_s", 1e308, "timeout_s", "less than or equal to 1000000000"),
        ("selection.alpha", 1e308, "selection.alpha", "must be 'auto' or a number from 1e-100 to 1e+100"),
        ("selection.alpha", 1e-320, "selection.alpha", "must be 'auto' or a number from 1e-100 to 1e+100"),
        ("selection.alpha", "Auto", "selection.alpha", "must be 'auto' or a number from 1e-100 to 1e+100"),
        ("selection.alpha", float("nan"), "selection.alpha", "must be 'auto' or a number from 1e-100 to 1e+100"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_field(
    service: Service, field: str, value: object, named: str, says: str
) -> None:
    before = service.http.get("/jobs").json()
    errors = fields_of(service.http.post("/jobs", content=changed(service.request(), field, value), headers=JSON))
    assert any(name.startswith(named) and says in message for name, message in errors.items()), errors
    assert service.http.get("/jobs").json() == before


@pytest.mark.parametrize("path", ["datasets", "jobs"])
def test_a_change_is_held_to_the_same(service: Service, path: str) -> None:
    body = {"uri": service.write_dataset(real_rows())} if path == "datasets" else service.request()
    url = service.http.post(f"/{path}", json=body).headers["Location"]
    for field, value in (("name", HALF), ("expires_at", "9999-12-31T23:59:59-12:00")):
        answer = service.http.patch(url, content=json.dumps({field: value}), headers=JSON)
        assert field in fields_of(answer)
    changes = {"name": "\U0010ffff", "expires_at": LAST_INSTANT}
    assert service.http.patch(url, json=changes).status_code == 200
    assert {field: service.http.get(url).json()[field] for field in changes} == changes


def test_the_last_instant_is_one_wherever_it_is_written(service: Service) -> None:
    """In a zone to the west its year is 9999 though Postgres, which keeps UTC, would have it in the year 10000."""
    east = datetime.fromisoformat(LAST_INSTANT).astimezone(UTC).replace(tzinfo=None) - timedelta(hours=12)
    body = changed(service.request(), "expires_at", f"{east.isoformat()}-12:00")
    job = service.http.post("/jobs", content=body, headers=JSON).json()
    assert service.job(job["id"])["expires_at"] == LAST_INSTANT


@pytest.mark.parametrize("bound", ["created_after", "created_before"])
@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"])
def test_a_list_is_filtered_by_any_time_that_can_be_written(service: Service, bound: str, moment: str) -> None:
    service.submit(service.request())
    ahead = moment.startswith("9999")
    everything, found = (service.http.get("/jobs", params=params).json() for params in ({}, {bound: moment}))
    assert found["items"] == (everything["items"] if ahead == (bound == "created_before") else [])


def test_the_longest_timeout_stops_no_reconciler(service: Service) -> None:
    """A sum that Postgres cannot hold would stop it for every job of every project."""
    body = {**service.request(), "timeout_s": 1e9}
    assert service.run(body)["state"] == "succeeded"
    service.submit(body)
    resources = service.http.app.state.resources  # type: ignore[attr-defined]
    reconcile(resources.sessions, resources.queue, service.settings)


@pytest.mark.parametrize("alpha", [1e-100, 1e100])
@pytest.mark.parametrize("partitions", [None, 3])
def test_the_largest_and_the_smallest_alpha_select(service: Service, alpha: float, partitions: int | None) -> None:
    job = service.run(service.request(alpha=alpha, partitions=partitions, baselines=["dpp"]))
    assert job["state"] == "succeeded", job["error"]
    assert 0 < job["result"]["certificate"]["value"] <= 1
