"""What a project may use: in the transaction that uses it, so that no two requests at once can both have the last."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from app.access.rate_limits import RateLimits
from app.cli import app as spice
from app.core.db.tables import DEFAULT_PROJECT, DeletedJob, Job, State
from app.core.lifecycle import quotas
from app.core.settings import get_settings
from tests.integration.conftest import ROWS, Service, real_rows
from tests.integration.keys import make_key
from tests.integration.problems import problem_of

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from app.core.db.engine import Sessions
    from app.core.settings import Settings


LIMITS: dict[str, Any] = {"quota_open_jobs": 3, "quota_rows_per_job": ROWS, "quota_rows_per_day": 2 * ROWS}


@pytest.fixture
def limits(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(getattr(request, "param", LIMITS))


@pytest.fixture
def service_settings(service_settings: Settings, limits: dict[str, Any]) -> Settings:
    return service_settings.model_copy(update={"auth": "keys", **limits})


def submit(service: Service, body: dict[str, Any]) -> Any:
    return service.http.post("/jobs", json=body)


@pytest.fixture
def http(service: Service, sessions: Sessions) -> TestClient:
    service.http.headers.update(make_key(sessions, "search"))
    return service.http


@pytest.mark.parametrize("limits", [{"quota_open_jobs": 3}], indirect=True)
def test_no_more_jobs_are_open_than_the_project_may_have(service: Service, http: TestClient) -> None:
    ids = [service.submit(service.request()) for _ in range(3)]
    response = submit(service, service.request())
    problem = problem_of(response, 429)
    assert (problem["type"], problem["limit"]) == ("quota-exceeded", "open_jobs")
    assert "3 jobs and proofs of the project have not ended, and 3 may" in problem["detail"]
    assert int(response.headers["Retry-After"]) > 0
    http.post(f"/jobs/{ids[0]}/cancel")
    assert submit(service, service.request()).status_code == 202


@pytest.mark.usefixtures("http")
@pytest.mark.parametrize("limits", [{"quota_open_jobs": 3}], indirect=True)
def test_of_many_at_once_no_more_are_let_in(service: Service) -> None:
    body = service.request()
    statuses: list[int] = []
    barrier = threading.Barrier(8)

    def race() -> None:
        barrier.wait()
        statuses.append(submit(service, body).status_code)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [202] * 3 + [429] * 5


@pytest.mark.usefixtures("http")
@pytest.mark.parametrize("limits", [{"quota_rows_per_job": ROWS - 1}], indirect=True)
def test_a_dataset_of_too_many_rows_is_refused_as_soon_as_they_are_known(service: Service, http: TestClient) -> None:
    told = problem_of(service.estimate(service.request()), 422)
    found = service.run(service.request())
    assert (found["state"], found["error"]["type"]) == ("failed", "quota-exceeded")
    assert f"has {ROWS} rows" in found["error"]["detail"]
    assert (told["type"], told["errors"]) == (found["error"]["type"], found["error"]["errors"]), "an estimate knows"

    dataset = http.post("/datasets", json={"uri": service.write_dataset(real_rows())}).json()
    service.work()
    problem = problem_of(submit(service, service.request() | {"dataset": {"id": dataset["id"]}}), 403)
    assert problem["type"] == "too-large-for-quota"
    assert problem["errors"][0]["field"] == "dataset"
    assert f"a job of the project may have {ROWS - 1}" in problem["errors"][0]["message"]


@pytest.mark.usefixtures("http")
@pytest.mark.parametrize("limits", [{"quota_rows_per_day": 2 * ROWS}], indirect=True)
def test_the_rows_of_a_day_are_counted_over_all_jobs(service: Service, sessions: Sessions) -> None:
    assert [service.run(service.request())["state"] for _ in range(2)] == ["succeeded"] * 2
    problem = problem_of(submit(service, service.request()), 429)
    assert problem["limit"] == "rows_per_day"
    with sessions() as session:
        session.execute(update(Job).values(created_at=Job.created_at - quotas.DAY))
        session.commit()
    assert service.run(service.request())["state"] == "succeeded"


@pytest.mark.parametrize("limits", [{"quota_rows_per_day": 2 * ROWS}], indirect=True)
def test_a_deleted_job_gives_nothing_back_for_a_day(service: Service, http: TestClient, sessions: Sessions) -> None:
    for _ in range(2):
        job = service.run(service.request())
        assert job["state"] == "succeeded", job["error"]
        assert http.delete(f"/jobs/{job['id']}").status_code == 204
    problem = problem_of(submit(service, service.request()), 429)
    assert problem["limit"] == "rows_per_day"
    assert f"of the last 24 hours {2 * ROWS}" in problem["detail"]
    other = make_key(sessions, "ads")
    assert http.post("/jobs", json=service.request(), headers=other).status_code == 202, "each project has its own"
    with sessions() as session:
        session.execute(update(DeletedJob).values(created_at=DeletedJob.created_at - quotas.DAY))
        session.commit()
        assert submit(service, service.request()).status_code == 202
        quotas.forget_deleted(session)
        assert session.scalars(select(DeletedJob)).all() == []


@pytest.mark.parametrize("limits", [{"quota_rows_per_day": 3}], indirect=True)
def test_two_workers_that_count_at_once_do_not_both_have_the_last_rows(service: Service, sessions: Sessions) -> None:
    with sessions() as session:
        jobs = [Job(request={}) for _ in range(2)]
        session.add_all(jobs)
        session.commit()
        ids = [job.id for job in jobs]
    found: list[quotas.Excess | None] = []
    barrier = threading.Barrier(2)

    def count(job_id: Any) -> None:
        barrier.wait()
        with sessions() as session:
            found.append(quotas.count_rows(session, job_id, 2, service.settings))

    threads = [threading.Thread(target=count, args=(job_id,)) for job_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [excess is None for excess in found].count(True) == 1
    with sessions() as session:
        assert sorted(session.scalars(select(Job.rows))) == [0, 2]


@pytest.mark.parametrize("limits", [{"quota_open_jobs": 1}], indirect=True)
def test_a_project_may_have_limits_of_its_own(
    service: Service,
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPICE_DATABASE_URL", service.settings.database_url)
    get_settings.cache_clear()
    service.http.headers.update(make_key(sessions, "search"))
    other = make_key(sessions, "ads")
    done = CliRunner().invoke(spice, ["projects", "limit", "search", "--open-jobs", "2", "--json"])
    assert json.loads(done.stdout)[0]["open_jobs"] == 2
    assert [submit(service, service.request()).status_code for _ in range(3)] == [202, 202, 429]
    assert service.http.post("/jobs", json=service.request(), headers=other).status_code == 202
    assert CliRunner().invoke(spice, ["projects", "limit", "search", "--open-jobs", "default"]).exit_code == 0
    assert submit(service, service.request()).status_code == 429
    assert CliRunner().invoke(spice, ["projects", "limit", "search", "--open-jobs", "few"]).exit_code == 2


@pytest.mark.parametrize("limits", [{}], indirect=True)
def test_a_project_without_limits_is_not_locked(service: Service, sessions: Sessions) -> None:
    with sessions() as holder, sessions() as session:
        holder.execute(select(quotas.Project.id).where(quotas.Project.id == DEFAULT_PROJECT).with_for_update())
        assert quotas.excess_of_submission(session, DEFAULT_PROJECT, service.settings, 10**9) is None


@pytest.mark.parametrize("limits", [{"rate_limit_per_minute": 5}], indirect=True)
def test_a_key_sends_no_more_requests_than_it_may(service: Service, sessions: Sessions) -> None:
    key, other = make_key(sessions, "search"), make_key(sessions, "search")
    answers = [service.http.get("/jobs", headers=key) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert answers[0].headers["RateLimit-Policy"] == '"key";q=5;w=60'
    assert answers[0].headers["RateLimit"].startswith('"key";r=4;t=')
    problem = problem_of(answers[-1], 429)
    assert problem["type"] == "rate-limited"
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert service.http.get("/jobs", headers=other).status_code == 200, "each key has its own"


@pytest.mark.parametrize("limits", [{"rate_limit_per_minute": 1}], indirect=True)
def test_without_redis_requests_pass_and_the_log_says_so(
    service: Service,
    sessions: Sessions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = service.http.app.state  # type: ignore[attr-defined]
    nowhere = service.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    object.__setattr__(state.access, "rate_limits", RateLimits(nowhere))
    key = make_key(sessions, "search")
    answers = [service.http.get("/jobs", headers=key) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert "RateLimit" not in answers[0].headers
    said = [record for record in caplog.records if "requests are not counted" in record.message]
    assert len(said) == 1, "and Redis is left alone for a while"


def test_a_job_that_ended_is_not_open(service: Service, sessions: Sessions) -> None:
    with sessions() as session:
        session.add_all([Job(request={}, state=State.FAILED) for _ in range(5)])
        session.commit()
        assert quotas.excess_of_submission(session, DEFAULT_PROJECT, service.settings, None) is None


@pytest.mark.parametrize("limits", [{"quota_open_readings": 3}], indirect=True)
def test_datasets_and_previews_wait_in_no_greater_number_than_the_project_may_have(
    service: Service, http: TestClient, sessions: Sessions
) -> None:
    uri = service.write_dataset(real_rows())
    first, *others = [http.post("/datasets", json={"uri": uri}) for _ in range(4)]
    assert [answer.status_code for answer in (first, *others)] == [202, 202, 202, 429]
    problem = problem_of(others[-1], 429)
    assert (problem["type"], problem["limit"]) == ("quota-exceeded", "open_readings")
    assert "3 datasets, previews and estimates of the project are not read yet, and 3 may at once" in problem["detail"]
    preview = f"/datasets/{first.json()['id']}/previews"
    body = {"model": {"uri": service.model_uri}}
    assert problem_of(http.post(preview, json=body), 429)["limit"] == "open_readings"
    assert http.post("/datasets", json={"uri": uri}, headers=make_key(sessions, "ads")).status_code == 202
    assert submit(service, service.request()).status_code == 202, "jobs have a limit of their own"
    service.work()
    assert [http.post(preview, json=body).status_code for _ in range(4)] == [202, 202, 202, 429]


@pytest.mark.parametrize("limits", [{"quota_open_readings": 3}], indirect=True)
def test_of_many_datasets_at_once_no_more_are_let_in(service: Service, http: TestClient) -> None:
    uri = service.write_dataset(real_rows())
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: http.post("/datasets", json={"uri": uri}).status_code, range(8)))
    assert sorted(statuses) == [202] * 3 + [429] * 5


@pytest.mark.parametrize("limits", [{"quota_open_jobs": 1}], indirect=True)
def test_where_nobody_has_set_a_limit_there_is_one(service: Service, http: TestClient) -> None:
    uri = service.write_dataset(real_rows())
    statuses = [http.post("/datasets", json={"uri": uri}).status_code for _ in range(80)]
    assert statuses == [202] * 50 + [429] * 30
