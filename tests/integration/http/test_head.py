"""HEAD is answered as GET, less the body: `curl -I`, fsspec and aria2 ask so before they download."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest

from app.main import create_app
from tests.integration.deadlines import soon
from tests.integration.problems import problem_of
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Service

OF_THE_REQUEST = {"date", "x-request-id"}


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    """Over a real connection, which a body that should not be there would break."""
    with served(create_app(service.settings)) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        yield client


def test_every_get_is_a_head_without_its_body(service: Service, client: httpx.Client) -> None:
    job = service.run(service.request())
    of_a_job = [
        "",
        "/events",
        "/subset",
        "/subset?format=csv",
        "/subset?rows=true",
        "/curve",
        "/conflicts",
        "/rejected",
    ]
    of_a_job += ["/rows", "/statistics", "/figures", "/figures/curve", "/report"]
    paths = ["/", "/docs", "/openapi.json", "/web/page.css", "/healthz", "/readyz", "/jobs", "/datasets"]
    for path in (*paths, *(f"/jobs/{job['id']}{path}" for path in of_a_job), "/jobs/none", "/nothing"):
        for headers in ({}, {"Accept-Encoding": "identity"}, {"If-None-Match": "*"}):
            got, head = client.get(path, headers=headers), client.head(path, headers=headers)
            assert head.status_code == got.status_code, path
            expected, found = ({k: v for k, v in one.headers.items() if k not in OF_THE_REQUEST} for one in (got, head))
            assert found == expected, path
            assert head.content == b""


def test_a_head_knows_no_ranges_and_writes_no_file_for_them(service: Service, client: httpx.Client) -> None:
    url = f"/jobs/{service.run(service.request())['id']}/subset"
    for asked in ("bytes=0-9", "bytes=999999999-"):
        head = client.head(url, headers={"Range": asked})
        assert (head.status_code, head.headers["accept-ranges"]) == (200, "bytes")
    assert not list(service.settings.artifacts_path.rglob("subset-*"))
    assert int(client.head(f"{url}?rows=true").headers["content-length"]) == len(client.get(f"{url}?rows=true").content)


def test_a_head_of_a_stream_does_not_wait_for_it(service: Service, client: httpx.Client) -> None:
    job_id = service.submit(service.request())
    began = time.monotonic()
    head = client.head(f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert time.monotonic() - began < soon(5)
    assert client.get(f"/jobs/{job_id}").status_code == 200, "the connection is whole"


def test_what_a_head_has_used_is_given_back(service: Service, client: httpx.Client) -> None:
    """Connections to Postgres: more requests than the pool has."""
    job_id = service.submit(service.request())
    for _ in range(4 * service.settings.database_pool_size):
        assert client.head(f"/jobs/{job_id}").status_code == 200
        assert client.head(f"/jobs/{job_id}/subset").status_code == 409


def test_what_only_changes_things_has_no_head(service: Service, client: httpx.Client) -> None:
    job_id = service.submit(service.request())
    head = client.head(f"/jobs/{job_id}/cancel")
    assert (head.status_code, head.content) == (405, b"")
    problem_of(client.put("/jobs"), 405)


def test_a_head_is_counted_under_its_route(client: httpx.Client) -> None:
    client.head("/jobs")
    counted = 'spice_http_request_duration_seconds_count{method="HEAD",route="/jobs",status="200"} 1.0'
    assert counted in client.get("/metrics").text
