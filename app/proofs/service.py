"""Submit, list, cancel and delete proofs."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from app.core.contracts.job_request import JobRequest
from app.core.contracts.proof_request import IndicesArm, MethodArm, ProofRequest
from app.core.db.scoping import project_of
from app.core.db.tables import Dataset, Job, Proof, State
from app.core.lifecycle import deletion, leases, proofs, quotas
from app.core.storage import StorageFailed
from app.core.telemetry import origin
from app.http import lists
from app.http.paging import page_of
from app.http.problems import (
    FieldError,
    InvalidRequest,
    ProofFinished,
    ProofNotFinal,
    QuotaExceeded,
    Unavailable,
    field_error,
)
from app.jobs import purposes
from app.jobs import service as jobs
from app.proofs import repository
from app.webhooks.urls import WebhookRefused, check_webhook_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from app.core.settings import Settings
    from app.core.storage import ArtifactStore
    from app.http.filters import Filters


@dataclass(frozen=True, slots=True)
class Submitted:
    """A proof, and the job that was made for it, if there was none."""

    proof: Proof
    job: Job | None


def submit(session: Session, settings: Settings, request: ProofRequest) -> Submitted:
    """A proof to store in the caller's transaction, and to be put into the queue after it.

    A proof that names no job has one made, which computes the sketches: they serve later jobs, as those of any job do.

    Raises:
        InvalidRequest: A field can't be right, as far as can be known without reading the data.
        QuotaExceeded: The project may not have another job or proof.
        DatasetNotFound: `dataset.id` names none.
    """
    errors = _errors(session, settings, request)
    if errors:
        raise InvalidRequest(*errors)
    own = None if request.job is not None else _own_job(session, settings, request)
    job = own or session.get_one(Job, request.job)
    errors = _errors_of_job(session, job, request)
    if errors:
        raise InvalidRequest(*errors)
    if own is None:
        _check_quota(session, settings)
    proof = Proof(
        id=uuid.uuid4(),
        name=request.name,
        metadata_=dict(request.metadata),
        job_id=job.id,
        own_job=own is not None,
        request=request.model_dump(mode="json", exclude={"name", "metadata", "timeout_s", "expires_at"}),
        timeout_s=jobs.timeout_of(settings, request.timeout_s),
        expires_at=request.expires_at or jobs.default_expiry(settings),
        origin=origin.noted(),
    )
    session.add(proof)
    return Submitted(proof, own)


def find_proof(session: Session, proof_id: uuid.UUID) -> Proof:
    """A proof by id; ProofNotFound if there is none."""
    return repository.find_proof(session, proof_id)


def list_proofs(
    session: Session, filters: Filters, *, limit: int, cursor: str | None
) -> tuple[list[Proof], str | None]:
    """A page of proofs, newest first, and the cursor of the next page.

    Raises:
        InvalidRequest: The cursor is not one that this service gave.
    """
    return page_of(session, lists.listed(Proof, **asdict(filters)), limit=limit, cursor=cursor)


def cancel(session: Session, proof_id: uuid.UUID) -> Proof:
    """Cancel a proof in the caller's transaction, with its runs and the job that was made for it.

    Raises:
        ProofNotFound: There is no such proof.
        ProofFinished: It has succeeded or failed. (One that is cancelled stays so: that is no error.)
    """
    proof = find_proof(session, proof_id)
    state = leases.request_cancel(session, Proof, proof_id)
    if state in (State.SUCCEEDED, State.FAILED):
        raise ProofFinished(f"Proof {proof_id} has {state} and can't be cancelled.")
    proofs.drop_finished(session)
    session.refresh(proof)
    return proof


def delete(session: Session, artifacts: ArtifactStore, proof_id: uuid.UUID) -> None:
    """Delete a proof that has ended, with its files and those of runs that no other proof has.

    Raises:
        ProofNotFound: There is no such proof.
        ProofNotFinal: It has not ended.
        Unavailable: The files can't be deleted; the proof is still there.
    """
    if not find_proof(session, proof_id).state.final:
        raise ProofNotFinal(
            f"Proof {proof_id} has not ended: cancel it with POST /proofs/{proof_id}/cancel, then delete it."
        )
    try:
        for prefix in proofs.prefixes_of(session, proof_id):
            artifacts.remove_all(prefix)
    except StorageFailed as error:
        raise Unavailable(str(error)) from error
    deletion.delete_proof(session, proof_id)
    session.commit()


def _check_quota(session: Session, settings: Settings) -> None:
    excess = quotas.excess_of_proof(session, project_of(session), settings)
    if excess is not None:
        raise QuotaExceeded("jobs", excess.message, excess.limit)


def _own_job(session: Session, settings: Settings, request: ProofRequest) -> Job:
    """The job that computes the sketches of a proof."""
    wanted = request.own_job
    assert wanted is not None  # noqa: S101 - the request says so itself; tells mypy
    wanted = wanted.model_copy(update={"name": request.name, "metadata": request.metadata})
    return jobs.submit(session, settings, wanted)


def _errors(session: Session, settings: Settings, request: ProofRequest) -> list[FieldError]:
    errors = []
    if request.webhook is not None:
        try:
            check_webhook_url(request.webhook.url, settings)
        except WebhookRefused as refused:
            errors.append(FieldError(field="webhook.url", message=str(refused)))
    held_out = request.held_out.dataset
    if held_out is not None:
        errors.extend(purposes.uri_errors(session, settings, held_out, "held_out.dataset"))
    if held_out is not None and held_out.id is not None and session.get(Dataset, held_out.id) is None:
        message = f"is {held_out.id}, and the project has no such dataset: register it with POST /datasets"
        errors.append(FieldError(field="held_out.dataset.id", message=message))
    if request.job is not None:
        job = session.get(Job, request.job)
        if job is None:
            message = f"is {request.job}, and the project has no such job: name one of GET /jobs"
            errors.append(FieldError(field="job", message=message))
        elif job.state in (State.FAILED, State.CANCELLED):
            message = (
                f"has {job.state}, so there is nothing to prove: name another, or send dataset, model and selection"
            )
            errors.append(FieldError(field="job", message=message))
        elif (limited := (job.result or {}).get("limited")) is not None:
            message = (
                f"has scored {limited['rows_scored']:,} rows and not {limited['rows_not_scored']:,} others, by its "
                "limits: a proof draws random rows from all, so submit the job again without limits, and prove that"
            )
            errors.append(FieldError(field="job", message=message))
        elif (not_again := _not_selected_again(job.request)) is not None:
            errors.append(FieldError(field="job", message=not_again))
    return errors


def _not_selected_again(request: Mapping[str, Any]) -> str | None:
    """Why a job's selection can't be made again without rows that are held out, as proofs do; None if it can."""
    what, other = None, ""
    if request.get("extends") is not None:
        what, other = f"extends job {request['extends']}", "extends none"
    elif request.get("schedule") is not None:
        what, other = "has a schedule, whose model has learned from its picks", "has none"
    if what is None:
        return None
    return (
        f"{what}, and a proof selects anew from rows that are not held out: name a job that {other}, and give the "
        "picks of this one as an arm of indices"
    )


def _errors_of_job(session: Session, job: Job, request: ProofRequest) -> list[FieldError]:
    """What the job's selection and the number of its rows, where that is known, tell of the arms."""
    asked = JobRequest.model_validate(job.request)
    spec = asked.selection
    dataset = None if job.dataset_id is None else session.get(Dataset, job.dataset_id)
    rows = (job.result or {}).get("rows_total") or (None if dataset is None else dataset.rows)
    errors = []
    for number, arm in enumerate(request.arms):
        field = f"arms.{number}"
        if isinstance(arm, MethodArm):
            try:
                arm.check(asked)
            except ValueError as error:
                said = field_error(error.errors()[0]).message if isinstance(error, ValidationError) else str(error)
                errors.append(FieldError(field=field, message=f"does not go with the selection: {said}"))
        if isinstance(arm, IndicesArm) and rows is not None and max(arm.indices) >= rows:
            message = f"names row {max(arm.indices)}, and the dataset has {rows} rows, counted from 0: leave it out"
            errors.append(FieldError(field=f"{field}.indices", message=message))
    fraction, count = request.held_out.fraction, spec.budget.count
    if rows is not None and fraction is not None and count is not None and count > rows - round(fraction * rows):
        left = rows - round(fraction * rows)
        message = f"leaves {left} of {rows} rows, and the budget is {count}: hold fewer out, or select fewer"
        errors.append(FieldError(field="held_out.fraction", message=message))
    return errors
