"""What a job would take: store the question, and wait for the worker that answers it."""

from __future__ import annotations

import json
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING

from anyio import sleep, to_thread
from fastapi import Response, status

from app.core.contracts.estimate import Estimate as EstimateContract
from app.core.db.tables import Estimate, State
from app.core.lifecycle.leases import Waiting
from app.datasets.service import check_quota
from app.http.idempotency import REPLAYED, Answer
from app.http.problems import EstimateNotFound, FieldError, InternalError, NotRunnable
from app.jobs.schemas import EstimateResponse
from app.jobs.service import check

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.core.contracts.job_request import JobRequest
    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from app.http.idempotency import Once

WAIT_S = 25.0
"""Seconds that a request waits for its estimate: less than clients and proxies wait for an answer."""
FIRST_LOOK_S, LONGEST_LOOK_S = 0.05, 0.5
RETRY_AFTER_S = 2
FAULTS = frozenset({"internal-error", "worker-lost", "storage-failed"})
"""Problems that are not the request's."""


async def answered(once: Once, settings: Settings, request: JobRequest) -> Response:
    """Ask for an estimate and wait for it.

    Returns:
        200 with the estimate; 202 with the place of the estimate if no worker has made it within `WAIT_S`. A request
        that is sent again with its `Idempotency-Key` waits for the estimate of the first time.

    Raises:
        InvalidRequest: A field is wrong, as far as the API can tell without reading the data.
        QuotaExceeded: The job, or one more reading, exceeds a quota of the project.
        DatasetNotFound: `dataset.id` names none.
        NotRunnable: The job would fail.
    """
    deadline = time.monotonic() + WAIT_S
    asked = await to_thread.run_sync(once.answer, partial(_ask, settings, request), _accepted)
    estimate_id = uuid.UUID(json.loads(bytes(asked.body))["id"])
    pause = FIRST_LOOK_S
    while True:
        await sleep(pause)
        found = await to_thread.run_sync(_look, once.sessions, estimate_id)
        if found.state.final or time.monotonic() > deadline:
            response = response_of(found)
            if REPLAYED in asked.headers:
                response.headers[REPLAYED] = asked.headers[REPLAYED]
            return response
        pause = min(1.5 * pause, LONGEST_LOOK_S)


def _ask(settings: Settings, request: JobRequest, session: Session) -> Estimate:
    check(session, settings, request)
    check_quota(session, settings)
    asked = Estimate(
        id=uuid.uuid4(),
        dataset_id=request.dataset.id,
        request=request.model_dump(mode="json", exclude={"name", "metadata", "expires_at", "webhook"}),
    )
    session.add(asked)
    return asked


def _accepted(asked: Estimate) -> Answer:
    return Answer(
        EstimateResponse(id=asked.id, state=asked.state),
        status.HTTP_202_ACCEPTED,
        _place(asked.id),
        queued=[Waiting(Estimate, asked.id, asked.dispatch)],
    )


def _place(estimate_id: uuid.UUID) -> dict[str, str]:
    return {"Location": f"/estimates/{estimate_id}", "Retry-After": str(RETRY_AFTER_S)}


def _look(sessions: Sessions, estimate_id: uuid.UUID) -> Estimate:
    with sessions() as session:
        return find(session, estimate_id)


def find(session: Session, estimate_id: uuid.UUID) -> Estimate:
    """An estimate by id; EstimateNotFound if there is none."""
    found = session.get(Estimate, estimate_id)
    if found is None:
        raise EstimateNotFound(f"No estimate has the id {estimate_id}: they are kept for a day; ask for another one.")
    return found


def response_of(estimate: Estimate) -> Response:
    """The estimate, or where it will be.

    Raises:
        NotRunnable: The job would fail.
        InternalError: The service has failed to make it.
    """
    if estimate.state is State.SUCCEEDED:
        content = EstimateContract.model_validate(estimate.content, extra="ignore")
        return _json(EstimateResponse(**content.model_dump(), id=estimate.id, state=estimate.state), 200, {})
    if estimate.state is State.FAILED:
        error = estimate.error or {}
        if error.get("type") in FAULTS:
            raise InternalError
        raise NotRunnable(error, [FieldError.model_validate(one) for one in error.get("errors") or ()])
    waiting = EstimateResponse(id=estimate.id, state=estimate.state)
    return _json(waiting, status.HTTP_202_ACCEPTED, _place(estimate.id))


def _json(body: EstimateResponse, code: int, headers: dict[str, str]) -> Response:
    return Response(body.model_dump_json(exclude_none=True), code, headers, media_type="application/json")
