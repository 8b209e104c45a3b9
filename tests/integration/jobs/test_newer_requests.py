"""Rows that a newer release has stored: this one shows them, and leaves their work to workers that understand them."""

from __future__ import annotations

import copy
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, update

from app.core.db.tables import Job, State
from app.core.lifecycle.leases import Waiting
from app.core.settings import get_settings
from workers.runtime.context import current_context

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from tests.integration.conftest import Service


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    return service_settings.model_copy(update={"reconcile_s": 3600.0})


def newer(service: Service, sessions: Sessions, change: dict[str, Any]) -> str:
    """A job whose request a newer release has stored: with what this one writes, and more."""
    job_id = service.submit(service.request())
    with sessions() as session:
        job = session.get_one(Job, uuid.UUID(job_id))
        request = copy.deepcopy(job.request)
        for section, values in change.items():
            request[section] = {**request.get(section, {}), **values}
        session.execute(update(Job).where(Job.id == job.id).values(request=request))
        session.commit()
    return job_id


UNKNOWN = {
    "field": {"selection": {"purpose": {"weight": 0.8}}},
    "section": {"curriculum": {"epochs": 3}},
    "value": {"selection": {"method": "tomorrow"}},
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_lists_and_jobs_are_shown_without_what_is_not_known(service: Service, sessions: Sessions, kind: str) -> None:
    known = service.submit(service.request())
    job_id = newer(service, sessions, UNKNOWN[kind])
    listed = service.http.get("/jobs")
    assert listed.status_code == 200, listed.text
    assert [job["id"] for job in listed.json()["items"]] == [job_id, known]
    shown = service.job(job_id)
    assert (shown["state"], shown["model"]["uri"]) == ("queued", service.model_uri)
    assert service.http.post(f"/jobs/{job_id}/cancel").json()["state"] == "cancelled"


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_worker_hands_back_what_it_does_not_understand(service: Service, sessions: Sessions, kind: str) -> None:
    """It must not leave a field out: the result would be another one."""
    job_id = newer(service, sessions, UNKNOWN[kind])
    service.work()
    with sessions() as session:
        job = session.get_one(Job, uuid.UUID(job_id))
        assert (job.state, job.lease_token, job.dispatch) == (State.QUEUED, None, 2)
        assert job.outage_since is not None
        # A worker of the newer release, which understands it, is played by this one and a request that it knows.
        understood = {section: value for section, value in job.request.items() if section != "curriculum"}
        selection = {name: value for name, value in understood["selection"].items() if name != "purpose"}
        understood["selection"] = {**selection, "method": "spice"}
        session.execute(update(Job).where(Job.id == job.id).values(request=understood, queued_at=func.now()))
        session.commit()
        service.http.app.state.resources.queue.put([Waiting(Job, job.id, job.dispatch)])  # type: ignore[attr-defined]
    service.work()
    assert service.job(job_id)["state"] == "succeeded"


def test_in_the_end_it_fails_and_says_what_was_not_understood(
    service: Service, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPICE_STORAGE_PATIENCE_S", "0.001")
    get_settings.cache_clear()
    current_context.cache_clear()
    job_id = newer(service, sessions, UNKNOWN["field"])
    service.work()
    with sessions() as session:
        session.execute(
            update(Job).values(outage_since=func.now() - func.make_interval(0, 0, 0, 1), queued_at=func.now())
        )
        session.commit()
        job = session.get_one(Job, uuid.UUID(job_id))
        service.http.app.state.resources.queue.put([Waiting(Job, job.id, job.dispatch)])  # type: ignore[attr-defined]
    service.work()
    error = service.job(job_id)["error"]
    assert error["type"] == "request-not-understood"
    assert "does not understand selection.purpose" in error["detail"]
    assert "start workers of the release that the API has" in error["detail"]
