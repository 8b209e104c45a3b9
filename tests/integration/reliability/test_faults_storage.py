"""An artifact store that is full, read-only, or away: a clear failure at once, or patience where it may come back."""

from __future__ import annotations

import errno
import os
import shutil
import time
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from sqlalchemy import select

from app.core.db.tables import Shard
from tests.integration.s3_server import S3Server, s3_server
from tests.integration.settled import assert_settled, final, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.core.settings import Settings
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes
    from tests.integration.s3_server import Call

pytestmark = pytest.mark.small_shards


_numbers = count(1)


def wide(service: Service) -> dict[str, Any]:
    """A job whose shards are larger than all else that it writes."""
    body = service.request()
    body["gradients"]["sketch_dim"] = 4096
    return body


def test_a_full_store_fails_the_job_and_the_next_one_finds_what_was_finished(
    service: Service, workers: Processes
) -> None:
    full = workers.start(("full_at", "100000"))
    job = wait_for(service, service.submit(wide(service)), final)
    assert job["error"]["type"] == "storage-failed", job["error"]
    assert "free space there" in job["error"]["detail"]
    full.terminate()
    full.wait()
    workers.start()
    assert wait_for(service, service.submit(wide(service)), final)["state"] == "succeeded"
    workers.stop()
    assert_settled(service, succeeded=1, failed="storage-failed")


def test_a_read_only_store_fails_the_job(service: Service, workers: Processes) -> None:
    place = service.settings.artifacts_path
    assert place is not None
    place.mkdir(parents=True)
    place.chmod(0o555)
    workers.start(("without_privileges",))
    job = wait_for(service, service.submit(service.request()), final)
    assert job["error"]["type"] == "storage-failed", job["error"]
    assert os.strerror(errno.EACCES) in job["error"]["detail"]
    assert "let the service write there" in job["error"]["detail"]
    workers.stop()
    place.chmod(0o755)
    assert_settled(service, succeeded=0, failed="storage-failed")


def test_a_model_that_the_worker_may_not_read_fails_the_job(service: Service, workers: Processes) -> None:
    model = service.directory / "model"
    shutil.copytree(unquote(urlsplit(service.model_uri).path), model)
    (model / "model.safetensors").chmod(0)
    workers.start(("without_privileges",))
    body = service.request()
    body["model"]["uri"] = model.as_uri()
    job = wait_for(service, service.submit(body), final)
    assert job["error"]["type"] == "model-unusable", job["error"]
    assert f"user {os.geteuid()}, may not read model.safetensors of {model.as_uri()}" in job["error"]["detail"]
    assert "chmod -R a+rX" in job["error"]["detail"]
    workers.stop()
    assert_settled(service, succeeded=0, failed="model-unusable")


def test_a_store_that_fails_now_and_then_costs_time_alone(service: Service, workers: Processes) -> None:
    workers.start(("fails_now_and_then",))
    job = wait_for(service, service.submit(service.request()), final)
    assert job["state"] == "succeeded", job["error"]
    workers.stop()
    assert_settled(service)


class TestABucket:
    @pytest.fixture
    def server(self) -> Iterator[S3Server]:
        with s3_server() as server:
            yield server

    @pytest.fixture
    def bucket(self, server: S3Server) -> str:
        name = f"faulty-{next(_numbers)}"
        server.client.create_bucket(Bucket=name)
        return name

    @pytest.fixture
    def service_settings(self, service_settings: Settings, server: S3Server, bucket: str) -> Settings:
        return service_settings.model_copy(
            update={
                "artifacts_url": f"s3://{bucket}/spice",
                "s3_endpoint_url": server.url,
                "storage_patience_s": 8.0,
            }
        )

    @pytest.mark.parametrize("what", ["/used", "shard-", "rows.jsonl"])
    def test_that_is_away_for_longer_than_the_retries_is_waited_for(
        self, service: Service, workers: Processes, server: S3Server, what: str
    ) -> None:
        refused: list[Call] = []

        def away(call: Call) -> tuple[int, str] | None:
            if call.method != "PUT" or what not in call.path:
                return None
            refused.append(call)
            return 503, "ServiceUnavailable"

        server.refuse = away
        workers.start(("impatient",))
        job_id = service.submit(service.request())
        deadline = time.monotonic() + 30
        while len(refused) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not final(service.job(job_id))
        server.reset()
        job = wait_for(service, job_id, final)
        assert job["state"] == "succeeded", job["error"]
        workers.stop()
        assert_settled(service)

    def test_that_stays_away_fails_the_job_in_the_end(
        self, service: Service, workers: Processes, server: S3Server, bucket: str
    ) -> None:
        server.refuse = lambda call: (503, "ServiceUnavailable") if "shard-" in call.path else None
        workers.start(("impatient",), storage_patience_s=1.5)
        job_id = service.submit(service.request())
        waits = wait_for(service, job_id, lambda job: job["stage"] == "gradients")
        assert not final(waits)
        job = wait_for(service, job_id, final)
        assert job["error"]["type"] == "storage-failed", job["error"]
        assert f"s3://{bucket}/spice" in job["error"]["detail"]
        assert "it was away for 1.5 s" in job["error"]["detail"]
        server.reset()
        workers.stop()
        assert_settled(service, succeeded=0, failed="storage-failed")

    def test_that_is_away_can_be_cancelled(self, service: Service, workers: Processes, server: S3Server) -> None:
        server.refuse = lambda call: (503, "ServiceUnavailable") if "shard-" in call.path else None
        workers.start(("impatient",))
        job_id = service.submit(service.request())
        sessions = service.http.app.state.resources.sessions  # type: ignore[attr-defined]

        def waits(_: dict[str, Any]) -> bool:
            with sessions() as session:
                return session.scalar(select(Shard.id).where(Shard.outage_since.is_not(None)).limit(1)) is not None

        wait_for(service, job_id, waits)
        service.http.post(f"/jobs/{job_id}/cancel")
        assert wait_for(service, job_id, final)["state"] == "cancelled"
        server.reset()
        workers.stop()
        assert_settled(service, succeeded=0)
