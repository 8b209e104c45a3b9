"""Keys and projects over HTTP: every route of the API, with no key, a wrong one, and another project's."""

from __future__ import annotations

import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.access import keys
from app.access.key_ring import KeyRing
from app.core.db.tables import ApiKey, Scope
from app.http.principal import is_open
from app.main import create_app
from tests.integration.conftest import Service, real_rows
from tests.integration.events.test_events import heard, ids_of
from tests.integration.keys import make_key
from tests.integration.problems import problem_of
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from app.core.db.engine import Sessions
    from app.core.settings import Settings

REMEMBER_S = 0.2


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    return service_settings.model_copy(update={"auth": "keys", "auth_cache_s": REMEMBER_S})


def routes(http: TestClient) -> list[tuple[str, str, dict[str, Any]]]:
    document = http.get("/openapi.json").json()
    found = [
        (method.upper(), path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if not is_open(path)
    ]
    assert len(found) >= 9
    return found


def ask(
    http: TestClient, route: tuple[str, str, dict[str, Any]], ids: dict[str, str], headers: dict[str, str]
) -> httpx.Response:
    """Send a request to a route: its parameters out of `ids`, its body the one of the documentation."""
    method, path, operation = route
    unknown = set(re.findall(r"{(\w+)}", path)) - ids.keys()
    assert not unknown, f"{method} {path}: say in this test what {unknown} is to be"
    contents = operation.get("requestBody", {}).get("content", {})
    examples = [example["value"] for one in contents.values() for example in one.get("examples", {}).values()]
    assert bool(examples) == ("requestBody" in operation), f"{method} {path} has no example of its body"
    if "application/octet-stream" in contents:
        return http.request(method, path, params={"name": "rows.jsonl"}, content=examples[0], headers=headers)
    return http.request(method, path.format(**ids), json=examples[0] if examples else None, headers=headers)


NAMED = ("job_id", "dataset_id", "preview_id", "proof_id", "estimate_id")


def test_no_route_answers_without_a_key_that_holds(service: Service, sessions: Sessions) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic c3BpY2U6c3BpY2U="},
        {"Authorization": "Bearer spice_000000000000_" + 43 * "A"},
        {"Authorization": "Bearer nonsense\x7f"},
        make_key(sessions, "search", expires_at=yesterday),
    ]
    changed = make_key(sessions, "search")["Authorization"]
    wrong.append({"Authorization": changed[:-2] + ("AA" if changed[-2:] != "AA" else "BB")})
    ids = {name: str(uuid.uuid4()) for name in NAMED}
    ids |= {"name": "curve", "row": "0", "upload_id": "0" * 64}
    for route in routes(service.http):
        assert {"401", "403", "429", "503"} <= route[2]["responses"].keys(), route[:2]
        for headers in wrong:
            response = ask(service.http, route, ids, headers)
            assert problem_of(response, 401)["type"] == "unauthenticated", route[:2]
            assert response.headers["WWW-Authenticate"].startswith('Bearer realm="spice"')
    assert service.http.get("/nothing").status_code == 401, "what there is not is nobody's to know"


def test_a_broken_body_is_not_read_before_the_key(service: Service) -> None:
    response = service.http.post("/jobs", content=b"{", headers={"content-type": "application/json"})
    assert response.status_code == 401


def test_probes_and_documentation_need_no_key(service: Service) -> None:
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert service.http.get(path).status_code == 200, path
    paths = service.http.get("/openapi.json").json()["paths"]
    assert (
        not {"401", "403", "429"}
        & (paths["/healthz"]["get"]["responses"] | paths["/readyz"]["get"]["responses"]).keys()
    )


def test_another_projects_key_finds_nothing_on_any_route(
    service: Service, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.estimates.WAIT_S", 0.0)  # no worker runs beside this test
    owner, stranger = make_key(sessions, "search", Scope.ADMIN), make_key(sessions, "ads", Scope.ADMIN)
    service.http.headers.update(owner)
    job = service.run(service.request())
    assert job["state"] == "succeeded", job["error"]
    dataset = service.http.post("/datasets", json={"uri": service.write_dataset(real_rows())}).json()
    preview = service.http.post(
        f"/datasets/{dataset['id']}/previews", json={"model": {"uri": service.model_uri}}
    ).json()
    estimate = service.http.post("/estimates", json=service.request()).json()
    kept = service.http.post("/files", params={"name": "rows.jsonl"}, content=b'{"text": "of the owner"}').json()
    service.work()
    assert service.http.get(f"/estimates/{estimate['id']}").status_code == 200
    proof = service.http.post("/proofs", json={"job": job["id"], "arms": ["selected", "random"]}).json()
    ids = {
        "job_id": job["id"],
        "dataset_id": dataset["id"],
        "preview_id": preview["id"],
        "proof_id": proof["id"],
        "estimate_id": estimate["id"],
        "upload_id": kept["id"],
        "name": "curve",
        "row": "0",
    }
    for route in routes(service.http):
        method, path, _ = route
        if path == "/metrics":  # of the service as a whole, for admins of any project
            continue
        response = ask(service.http, route, ids, stranger)
        if "{" in path:
            assert problem_of(response, 404)["type"].endswith("-not-found"), (method, path)
        elif path == "/files":  # what the settings allow every project, and an upload of the stranger's own
            assert response.status_code in {200, 201}
        elif method == "GET":
            assert response.json()["items"] == [], (method, path)
        else:
            assert response.status_code in {202, 422}, (method, path, response.text)
    body = service.request() | {"dataset": {"id": dataset["id"]}}
    assert problem_of(service.http.post("/jobs", json=body, headers=stranger), 404)["type"] == "dataset-not-found"
    body = service.request() | {"extends": job["id"]}
    refused = problem_of(service.http.post("/jobs", json=body, headers=stranger), 422)
    assert "the project has no such job" in refused["errors"][0]["message"]
    assert service.job(job["id"]) == job, "nor has any of it changed anything"
    assert [item["id"] for item in service.http.get("/jobs").json()["items"]] == [job["id"]]
    totals = [service.http.get("/jobs?total=true", headers=who).json()["total"] for who in ({}, stranger)]
    assert totals == [1, 0], "what is not seen is not counted"


def test_a_key_may_do_what_its_scope_says(service: Service, sessions: Sessions) -> None:
    read, write = make_key(sessions, "search", Scope.READ), make_key(sessions, "search", Scope.WRITE)
    problem = problem_of(service.http.post("/jobs", json=service.request(), headers=read), 403)
    assert (problem["type"], "write" in problem["detail"]) == ("scope-missing", True)
    job_id = service.http.post("/jobs", json=service.request(), headers=write).json()["id"]
    assert service.http.get(f"/jobs/{job_id}", headers=read).status_code == 200
    assert service.http.post(f"/jobs/{job_id}/cancel", headers=read).status_code == 403
    assert service.http.post(f"/jobs/{job_id}/cancel", headers=write).status_code == 200


def test_a_stream_ends_with_its_key(service: Service, sessions: Sessions) -> None:
    key = make_key(sessions, "search")
    job_id = service.http.post("/jobs", json=service.request(), headers=key).json()["id"]
    quick = service.settings.model_copy(update={"events_heartbeat_s": 0.1})
    with served(create_app(quick)) as url, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(heard, f"{url}/jobs/{job_id}/events", **key)
        time.sleep(5 * REMEMBER_S)
        assert not answer.done(), "it is looked at, and holds"
        with sessions() as session:
            assert keys.revoke(session, key["Authorization"].split("_")[1])
        assert len(ids_of(answer.result(10).text)) == 1
        problem_of(heard(f"{url}/jobs/{job_id}/events", **key), 401)


def test_a_revoked_key_opens_nothing_once_it_is_forgotten(service: Service, sessions: Sessions) -> None:
    key = make_key(sessions, "search")
    assert service.http.get("/jobs", headers=key).status_code == 200
    with sessions() as session:
        assert keys.revoke(session, key["Authorization"].split("_")[1])
    time.sleep(1.5 * REMEMBER_S)
    assert service.http.get("/jobs", headers=key).status_code == 401


def test_a_key_is_looked_up_once_and_its_use_noted_once_a_minute(sessions: Sessions) -> None:
    token = make_key(sessions, "search")["Authorization"].removeprefix("Bearer ")
    ring = KeyRing(sessions, 60)
    assert ring.remembered(token) is None
    found = ring.find(token)
    assert found is not None
    assert ring.remembered(token) == found
    with sessions() as session:
        first = session.scalar(select(ApiKey.last_used_at))
        ring.find(token)
        session.rollback()
        assert session.scalar(select(ApiKey.last_used_at)) == first
        session.execute(update(ApiKey).values(last_used_at=datetime.now(UTC) - timedelta(minutes=2)))
        session.commit()
        ring.find(token)
        assert session.scalar(select(ApiKey.last_used_at)) > first  # type: ignore[operator]


def test_only_the_hash_of_a_key_is_stored(sessions: Sessions) -> None:
    token = make_key(sessions, "search")["Authorization"].removeprefix("Bearer ")
    with sessions() as session:
        row = session.scalars(select(ApiKey)).one()
        stored = " ".join(str(value) for value in vars(row).values())
    assert token.split("_", 2)[2] not in stored
    assert len(row.secret_hash) == 32


@pytest.mark.parametrize(("share", "reused"), [(False, False), (True, True)])
def test_projects_use_one_anothers_sketches_only_if_told(
    service: Service, sessions: Sessions, monkeypatch: pytest.MonkeyPatch, *, share: bool, reused: bool
) -> None:
    from workers.runtime.context import current_context  # noqa: PLC0415 - made by the service fixture's settings

    context = current_context()
    monkeypatch.setattr(context, "settings", context.settings.model_copy(update={"share_sketches": share}))
    results = []
    for project in ("search", "ads", "ads"):
        service.http.headers.update(make_key(sessions, project))
        results.append(service.run(service.request())["result"]["sketches_reused"])
    assert results == [False, reused, True]


@pytest.fixture
def open_http(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service.settings.model_copy(update={"auth": "off"})), "http://localhost:8000") as http:
        yield http


def test_where_no_keys_are_asked_for_everything_is_the_default_projects(
    service: Service, sessions: Sessions, open_http: TestClient
) -> None:
    job_id = open_http.post("/jobs", json=service.request()).json()["id"]
    assert service.http.get(f"/jobs/{job_id}", headers=make_key(sessions, "search")).status_code == 404
    assert service.http.get(f"/jobs/{job_id}", headers=make_key(sessions, "default")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"Host": "127.0.0.1:8000"}, True),
        ({"Host": "[::1]:8000"}, True),
        ({"Origin": "http://127.0.0.1:8000"}, True),
        ({"Origin": "http://spice.localhost:3000"}, True),
        ({"Host": "rebound.example"}, False),
        ({"Host": "127.0.0.1.example:8000"}, False),
        ({"Host": "localhost@example:8000"}, False),
        ({"Host": "169.254.169.254"}, False),
        ({"Host": "["}, False),
        ({"Host": ""}, False),
        ({"Origin": "https://example"}, False),
        ({"Origin": "http://localhost.example"}, False),
        ({"Origin": "null"}, False),
    ],
)
def test_where_no_keys_are_asked_for_other_sites_pages_are_kept_out(
    service: Service, open_http: TestClient, headers: dict[str, str], *, passes: bool
) -> None:
    """By a name that turned into this machine's address (DNS rebinding), or by a request across sites."""
    answers = [
        open_http.get("/jobs", headers=headers),
        open_http.post("/jobs", json=service.request(), headers=headers),
    ]
    assert [answer.status_code for answer in answers] == ([200, 202] if passes else [403, 403])
    if not passes:
        assert {answer.json()["type"] for answer in answers} == {"other-site"}
        assert "SPICE_AUTH=keys" in answers[0].json()["detail"]
