"""Names, metadata, expiry and deletion of jobs and datasets."""

from __future__ import annotations

import errno
import shutil
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from app.core.db.tables import Job
from app.core.storage import rows_prefix
from tests.integration.settled import expire_until

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.settings import Settings
    from tests.integration.conftest import Service

IN_A_DAY = (datetime.now(UTC) + timedelta(days=1)).isoformat()


def resources(service: Service) -> Any:
    return service.http.app.state.resources  # type: ignore[attr-defined]


def rows_of(service: Service, job_id: str) -> list[str]:
    return [stored.name for stored in resources(service).artifacts.list(rows_prefix(job_id))]  # type: ignore[arg-type]


def left_of(service: Service, job_id: str) -> int:
    """Rows of the database that still know a job."""
    tables = ("jobs", "selections", "selection_chunks", "rejected_rows", "job_events", "shards", "job_statistics")
    with resources(service).sessions() as session:
        return sum(
            session.scalar(
                text(f"SELECT count(*) FROM {table} WHERE {'id' if table == 'jobs' else 'job_id'} = :id"),  # noqa: S608
                {"id": job_id},
            )
            for table in tables
        )


def test_what_is_sent_is_changed_and_the_rest_stays(service: Service) -> None:
    job_id = service.submit(service.request() | {"name": "a", "metadata": {"x": "1"}, "expires_at": IN_A_DAY})
    before = service.job(job_id)
    assert datetime.fromisoformat(before["expires_at"]) == datetime.fromisoformat(IN_A_DAY)
    changed = service.http.patch(f"/jobs/{job_id}", json={"name": "b"}).json()
    assert (changed["name"], changed["metadata"], changed["expires_at"]) == ("b", {"x": "1"}, before["expires_at"])
    assert changed["updated_at"] > before["updated_at"]
    changed = service.http.patch(f"/jobs/{job_id}", json={"metadata": {"y": "2"}, "expires_at": None}).json()
    assert (changed["name"], changed["metadata"], changed["expires_at"]) == ("b", {"y": "2"}, None)
    assert service.job(job_id) == changed
    assert service.http.patch(f"/jobs/{job_id}", json={"name": None}).json()["name"] is None


@pytest.mark.parametrize(
    "body",
    [{"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at": "2099-01-01T00:00:00"}, {"state": "failed"}, {"name": ""}],
)
def test_what_cannot_be_is_refused(service: Service, body: dict[str, Any]) -> None:
    job_id = service.submit(service.request())
    before = service.job(job_id)
    assert service.http.patch(f"/jobs/{job_id}", json=body).status_code == 422
    assert service.job(job_id) == before
    if "expires_at" in body:
        assert service.http.post("/jobs", json=service.request() | body).status_code == 422


def test_a_job_that_has_ended_is_deleted_with_all_that_is_its_own(service: Service) -> None:
    found = service.run(service.request())
    other = service.run(service.request(conflict_penalty=0.3))
    assert rows_of(service, found["id"])
    assert service.http.delete(f"/jobs/{found['id']}").status_code == 204
    assert service.http.get(f"/jobs/{found['id']}").status_code == 404
    assert service.http.delete(f"/jobs/{found['id']}").status_code == 404
    assert (left_of(service, found["id"]), rows_of(service, found["id"])) == (0, [])
    assert rows_of(service, other["id"])
    again = service.run(service.request())
    assert again["result"]["sketches_reused"], "the sketches stay for other jobs"


def test_a_job_that_has_not_ended_is_not_deleted(service: Service) -> None:
    job_id = service.submit(service.request())
    answer = service.http.delete(f"/jobs/{job_id}")
    assert (answer.status_code, answer.json()["type"]) == (409, "job-not-final")
    service.http.post(f"/jobs/{job_id}/cancel")
    assert service.http.delete(f"/jobs/{job_id}").status_code == 204


def test_a_dataset_is_kept_while_it_is_read(service: Service) -> None:
    uri = service.request()["dataset"]["uri"]
    dataset = service.http.post("/datasets", json={"uri": uri}).json()
    url = f"/datasets/{dataset['id']}"
    assert service.http.delete(url).json()["type"] == "dataset-in-use"
    service.work()
    job_id = service.submit(service.request() | {"dataset": {"id": dataset["id"]}})
    assert service.http.delete(url).json()["type"] == "dataset-in-use"
    changed = service.http.patch(url, json={"name": "tickets", "expires_at": IN_A_DAY}).json()
    assert (changed["name"], changed["uri"]) == ("tickets", uri)
    service.work()
    assert service.job(job_id)["state"] == "succeeded"
    assert service.http.delete(url).status_code == 204
    assert service.http.get(url).status_code == 404
    assert service.job(job_id)["result"]["selected"] > 0


def test_what_has_expired_goes_once_it_has_ended(service: Service) -> None:
    found = service.run(service.request())
    waiting = service.submit(service.request())
    kept = service.submit(service.request() | {"expires_at": IN_A_DAY})
    service.http.post(f"/jobs/{kept}/cancel")
    dataset = service.http.post("/datasets", json={"uri": service.request()["dataset"]["uri"]}).json()["id"]
    sessions = resources(service).sessions
    with sessions() as session:
        session.execute(
            text("UPDATE jobs SET expires_at = now() - interval '1 second' WHERE id = ANY(:ids)"),
            {"ids": [found["id"], waiting]},
        )
        session.execute(text("UPDATE datasets SET expires_at = now() - interval '1 second'"))
        session.commit()
    expire_until(service, gone=1)
    assert (left_of(service, found["id"]), rows_of(service, found["id"])) == (0, [])
    assert service.http.get(f"/datasets/{dataset}").status_code == 200  # not read yet
    service.http.post(f"/jobs/{waiting}/cancel")
    service.work()
    expire_until(service, gone=1)
    assert service.http.get(f"/datasets/{dataset}").status_code == 404
    assert service.job(kept)["state"] == "cancelled"


def test_a_job_whose_rows_cannot_be_deleted_holds_up_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, other = (service.run(service.request())["id"] for _ in range(2))
    sessions = resources(service).sessions
    with sessions() as session:  # the one that is stuck is the first in line
        for job_id, seconds in ((stuck, 2), (other, 1)):
            session.get_one(Job, uuid.UUID(job_id)).expires_at = datetime.now(UTC) - timedelta(seconds=seconds)
        session.commit()
    remove_all = shutil.rmtree

    def immutable(path: Path) -> None:
        """As of a file that is marked so, which root, who runs the tests, could delete in all other ways."""
        if stuck in path.parts:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        remove_all(path)

    monkeypatch.setattr("app.core.storage.local.shutil.rmtree", immutable)
    expire_until(service, gone=1)
    assert (left_of(service, other), rows_of(service, other)) == (0, [])
    assert service.job(stuck)["state"] == "succeeded"
    assert f"job {stuck} has expired, and is deleted once its files can be: the artifact store" in caplog.text
    monkeypatch.undo()
    expire_until(service, gone=1)
    assert (left_of(service, stuck), rows_of(service, stuck)) == (0, [])


class TestASettingForAll:
    @pytest.fixture
    def service_settings(self, service_settings: Settings) -> Settings:
        return service_settings.model_copy(update={"jobs_max_age_s": 3600.0, "expiry_s": 0.1})

    def test_a_request_without_expiry_gets_that_of_the_setting_and_the_api_carries_it_out(
        self, service: Service
    ) -> None:
        job_id = service.submit(service.request())
        job = service.job(job_id)
        age = datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["created_at"])
        assert abs(age.total_seconds() - 3600) < 60
        service.http.post(f"/jobs/{job_id}/cancel")
        with resources(service).sessions() as session:
            session.get_one(Job, job_id).expires_at = datetime.now(UTC) - timedelta(seconds=1)
            session.commit()
        deadline = time.monotonic() + 20
        while service.http.get(f"/jobs/{job_id}").status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
