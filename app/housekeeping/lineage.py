"""Tell an OpenLineage server of jobs: START, then COMPLETE, FAIL or ABORT, with dataset, model and subset by hash.

A trigger notes each event in the transaction that it tells of, so none is lost and none is told of what has not
happened. Any number of API processes send; each takes an event for some seconds, and a job's events go in their order.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import httpx
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import aliased

from app.core.db import selections
from app.core.db.selections import MAIN
from app.core.db.tables import Dataset, Job, LineageEvent

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator, Sequence

    from app.core.db.engine import Sessions
    from app.core.settings import Settings

logger = logging.getLogger(__name__)

EVERY_S: Final = 2.0
AT_ONCE: Final = 100
REQUEST_S: Final = 10.0
HOLD: Final = timedelta(seconds=60)
LONGEST_PAUSE_S: Final = 3600.0
ATTEMPTS: Final = 20
"""Then an event is given up: with pauses that double from 10 s to an hour, after about half a day."""
SPEC: Final = "https://openlineage.io/spec"
PRODUCER: Final = f"urn:spice-select:{version('spice-select')}"


def send_due(sessions: Sessions, settings: Settings) -> int:
    """Send the events that are due, and delete those that were taken.

    Returns:
        Number of events that the server has taken.

    Raises:
        SQLAlchemyError: Postgres does not answer.
    """
    headers = {} if settings.lineage_key is None else {"Authorization": f"Bearer {settings.lineage_key}"}
    sent = 0
    with httpx.Client(timeout=REQUEST_S, headers=headers, trust_env=False) as client:
        for event_id, body, attempts in _taken(sessions, settings):
            wrong = _post(client, settings.lineage_url or "", body)
            with sessions() as session:
                if wrong is None or attempts >= ATTEMPTS:
                    session.execute(delete(LineageEvent).where(LineageEvent.id == event_id))
                else:
                    pause = timedelta(seconds=min(10.0 * 2 ** (attempts - 1), LONGEST_PAUSE_S))
                    session.execute(
                        update(LineageEvent).where(LineageEvent.id == event_id).values(due_at=func.now() + pause)
                    )
                session.commit()
            if wrong is None:
                sent += 1
            else:
                logger.warning("the OpenLineage server did not take an event, attempt %d: %s", attempts, wrong)
    return sent


def _taken(sessions: Sessions, settings: Settings) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Due events, each held against other processes; of a job the oldest alone."""
    earlier = aliased(LineageEvent)
    first = ~exists().where(earlier.job_id == LineageEvent.job_id, earlier.id < LineageEvent.id)
    for _ in range(AT_ONCE):
        with sessions() as session:
            found = session.scalars(
                select(LineageEvent)
                .where(LineageEvent.due_at <= func.now(), first)
                .order_by(LineageEvent.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if found is None:
                return
            job = session.get_one(Job, found.job_id)
            registered = None if job.dataset_id is None else session.get(Dataset, job.dataset_id)
            uris = _uris(job) if registered is None else registered.every_uri
            body = event(
                job, uris, found, settings, None if found.kind != "COMPLETE" else subset_hash(sessions, job.id)
            )
            event_id, attempts = found.id, found.attempts + 1
            session.execute(
                update(LineageEvent)
                .where(LineageEvent.id == event_id)
                .values(due_at=func.now() + HOLD, attempts=attempts)
            )
            session.commit()
        yield event_id, body, attempts


def _post(client: httpx.Client, url: str, body: dict[str, Any]) -> str | None:
    """What was wrong; None if the server has taken the event."""
    try:
        answer = client.post(url, json=body)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None if answer.is_success else f"it answered {answer.status_code}"


def subset_hash(sessions: Sessions, job_id: uuid.UUID) -> str:
    """`sha256:<hex>` over the numbers of the picked rows, in the order of picking, a line each."""
    digest = hashlib.sha256()
    for chunk in selections.stream_column(sessions, job_id, "indices", MAIN):
        digest.update("".join(f"{row}\n" for row in chunk).encode())
    return f"sha256:{digest.hexdigest()}"


def event(job: Job, uris: Sequence[str], told: LineageEvent, settings: Settings, subset: str | None) -> dict[str, Any]:
    """The event as OpenLineage 2-0-2 has it.

    Args:
        job: The job.
        uris: Of its dataset.
        told: What happened to it.
        settings: The namespace.
        subset: Hash of its picks, if it has any.
    """
    result = job.result or {}
    return {
        "eventType": told.kind,
        "eventTime": told.at.isoformat(),
        "producer": PRODUCER,
        "schemaURL": f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": str(job.id), "facets": _run_facets(job)},
        "job": {
            "namespace": settings.lineage_namespace,
            "name": job.name or "selection",
            "facets": {
                "jobType": _facet(
                    "2-0-3/JobTypeJobFacet.json", processingType="BATCH", integration="SPICE", jobType="SELECTION"
                )
            },
        },
        "inputs": [
            *(_dataset(uri, result.get("fingerprint")) for uri in uris),
            _dataset(job.request["model"]["uri"], _hashed(result.get("model_revision"))),
        ],
        "outputs": []
        if subset is None
        else [
            {
                "namespace": settings.lineage_namespace,
                "name": f"jobs/{job.id}/subset",
                "facets": {"version": _version(subset)},
                "outputFacets": {
                    "outputStatistics": _facet(
                        "1-0-2/OutputStatisticsOutputDatasetFacet.json", rowCount=result["selected"]
                    )
                },
            }
        ],
    }


def _uris(job: Job) -> list[str]:
    dataset = job.request["dataset"]
    if dataset.get("uris"):
        return list(dataset["uris"])
    return [dataset["uri"]] if dataset.get("uri") else []  # a registered dataset that was deleted meanwhile


def _dataset(uri: str, hashed: str | None) -> dict[str, Any]:
    """A URI by OpenLineage's rules of naming; what could be a signature in its query stays away."""
    parts = urlsplit(uri)
    namespace = parts.scheme if not parts.netloc else f"{parts.scheme}://{parts.netloc}"
    name = unquote(parts.path)
    name = name if parts.scheme == "file" else name.lstrip("/")
    return {
        "namespace": namespace,
        "name": name or "/",
        "facets": {} if hashed is None else {"version": _version(hashed)},
    }


def _hashed(revision: str | None) -> str | None:
    return None if revision is None else f"sha256:{revision}"


def _version(hashed: str) -> dict[str, Any]:
    return _facet("1-0-1/DatasetVersionDatasetFacet.json", datasetVersion=hashed)


def _run_facets(job: Job) -> dict[str, Any]:
    if job.error is None:
        return {}
    message = f"{job.error.get('type')}: {job.error.get('detail') or job.error.get('title')}"
    return {"errorMessage": _facet("1-0-1/ErrorMessageRunFacet.json", message=message, programmingLanguage="PYTHON")}


def _facet(schema: str, **values: object) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{SPEC}/facets/{schema}", **values}
