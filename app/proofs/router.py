"""`/proofs`: submit, list, look, cancel, delete."""

from __future__ import annotations

import uuid  # noqa: TC003 - FastAPI reads the annotations
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Header, Query, Response, status
from fastapi.responses import HTMLResponse, StreamingResponse

from app.core.contracts.proof_request import EXAMPLE_PROOF_REQUEST, ProofRequest
from app.core.contracts.schema import Page
from app.core.db.tables import Job, Proof, State
from app.core.lifecycle.leases import Waiting
from app.http.caching import ValidatorsDep  # noqa: TC001
from app.http.dependencies import ArtifactsDep, SessionDep, SessionsDep, SettingsDep  # noqa: TC001
from app.http.filters import METADATA_PARAMETER, FiltersDep
from app.http.idempotency import Answer, OnceDep
from app.http.openapi import Responses, empty, example, problems
from app.http.paging import Cursor, Limit  # noqa: TC001
from app.http.problems import (
    DatasetNotFound,
    InvalidRequest,
    NotAcceptable,
    ProofFinished,
    ProofNotFinal,
    ProofNotFound,
    ProofNotReady,
    QuotaExceeded,
    ScoresDamaged,
    ScoresNotReady,
    Unavailable,
)
from app.proofs import repository, runs, service
from app.proofs.report import render
from app.proofs.response import to_response
from app.proofs.schemas import EXAMPLE_PROOF, PROOF_ID, ProofResponse

router = APIRouter(prefix="/proofs", tags=["proofs"])

POLL_AFTER_S = 5
EXAMPLE_QUEUED = {**EXAMPLE_PROOF, "state": "queued", "stage": None, "progress": None, "workers": []}
STILL = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
EXAMPLE_RUN = (
    '{"arm":"selected","seed":0,"state":"succeeded","metrics":{"loss":2.412},"rows":32,"tokens":3321,"steps":3,'
    '"seconds":41.2,"train_loss":2.533,"reused":false,"worker":"gpu-1:41","key":"9b0e...","error":null}\n'
)
RUNS_ANSWER: Responses = {
    200: {
        "description": "The runs.",
        "content": {
            "application/x-ndjson": {"example": EXAMPLE_RUN},
            **{media_type: {} for media_type in runs.MEDIA_TYPES.values() if media_type != "application/x-ndjson"},
        },
    }
}
NOT_FOUND = (ProofNotFound, f"No proof has the id {PROOF_ID}.")


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=ProofResponse,
    summary="Submit a proof",
    responses=example(202, "The proof is stored and queued.", EXAMPLE_QUEUED)
    | problems(
        (QuotaExceeded, "jobs: 8 jobs of the project have not ended, and 8 may at once: wait for one, or ..."),
        (DatasetNotFound, "No dataset has the id 3f0c5d0e-6f0e-4a53-9d0e-0f2f6f1b7a11: register it first."),
        (InvalidRequest, "seeds: Input should be greater than or equal to 2 (got '1')"),
    ),
)
def submit(
    settings: SettingsDep,
    once: OnceDep,
    body: Annotated[ProofRequest, Body(openapi_examples={"of a job": {"value": EXAMPLE_PROOF_REQUEST}})],
) -> Response:
    """Train on the selection and on other rows, several times each, and compare the models on held-out rows.

    With `job` the proof takes that job's dataset, model, gradients and selection; else a job is made for it.
    """

    def accepted(made: service.Submitted) -> Answer:
        proof, job = made.proof, made.job
        queued = [Waiting(Proof, proof.id, proof.dispatch)]
        return Answer(
            to_response(proof),
            status.HTTP_202_ACCEPTED,
            {"Location": f"/proofs/{proof.id}", "Retry-After": str(POLL_AFTER_S)},
            queued=[*([] if job is None else [Waiting(Job, job.id, job.dispatch)]), *queued],
        )

    return once.answer(lambda session: service.submit(session, settings, body), accepted)


@router.get(
    "",
    summary="List proofs",
    openapi_extra=METADATA_PARAMETER,
    responses=example(200, "A page of proofs.", {"items": [EXAMPLE_PROOF], "next_cursor": None})
    | problems((InvalidRequest, "cursor: is not a next_cursor that this service gave")),
)
def list_proofs(
    session: SessionDep,
    settings: SettingsDep,
    validators: ValidatorsDep,
    filters: FiltersDep,
    limit: Limit = None,
    cursor: Cursor = None,
) -> Page[ProofResponse]:
    """Proofs, newest first, for which all filters hold."""
    found, next_cursor = service.list_proofs(session, filters, limit=limit or settings.page_size, cursor=cursor)
    validators.polled(*found, also=[next_cursor])
    return Page(items=[to_response(proof) for proof in found], next_cursor=next_cursor)


@router.get(
    "/{proof_id}",
    summary="Look at a proof",
    response_model=ProofResponse,
    responses=example(200, "The proof.", EXAMPLE_PROOF) | problems(NOT_FOUND),
)
def get(sessions: SessionsDep, proof_id: uuid.UUID, validators: ValidatorsDep) -> Response:
    """State, stage, progress; arms, comparisons, premise and cost once it succeeded, the reason once it failed."""
    with sessions() as session:
        proof = repository.find_proof(session, proof_id)
        headers = validators.polled(proof)
        open_runs = [] if proof.state.final else repository.runs(session, proof)
    if not proof.state.final:
        headers |= {"Retry-After": str(POLL_AFTER_S)}
    return Response(to_response(proof, open_runs).model_dump_json(), headers=headers, media_type="application/json")


@router.get(
    "/{proof_id}/runs",
    summary="The runs of a proof",
    response_class=Response,
    responses=RUNS_ANSWER
    | problems(
        NOT_FOUND,
        (
            NotAcceptable,
            "Accept is 'image/png', but runs come as application/x-ndjson, application/vnd.apache.parquet.",
        ),
        (ScoresNotReady, f"The scores of proof {PROOF_ID} are there once it has succeeded, ..."),
        (ScoresDamaged, f"proofs/{PROOF_ID}/scores.parquet in the artifact store /var/spice is damaged ..."),
        (Unavailable, "the artifact store s3://bucket/spice could not read proofs/...: see SPICE_ARTIFACTS_URL"),
    ),
)
def proof_runs(
    sessions: SessionsDep,
    artifacts: ArtifactsDep,
    proof_id: uuid.UUID,
    format: Annotated[  # noqa: A002 - the parameter's name
        Literal["ndjson", "parquet"] | None, Query(description="Instead of `Accept`.")
    ] = None,
    items: Annotated[bool, Query(description="One row a run, metric and held-out row.")] = False,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """Every run with its state and metrics; with `items=true` what each scored on each held-out row."""
    kind = runs.chosen_format(format, accept)
    with sessions() as session:
        proof = repository.find_proof(session, proof_id)
        found = repository.runs(session, proof)
    headers = {
        "Vary": "Accept",
        "Content-Disposition": f'attachment; filename="proof-{proof_id}{"-items" if items else ""}.{kind}"',
    }
    media_type = runs.MEDIA_TYPES[kind]
    if items:
        return StreamingResponse(runs.scores_file(artifacts, proof, kind), media_type=media_type, headers=headers)
    return Response(runs.runs_file(found, kind), media_type=media_type, headers=headers)


@router.get(
    "/{proof_id}/report",
    summary="The report of a proof",
    response_class=HTMLResponse,
    responses=example(200, "One HTML file.", "<!doctype html><title>Proof nightly</title>...", "text/html")
    | problems(NOT_FOUND, (ProofNotReady, f"Proof {PROOF_ID} is running: poll it until its state is succeeded.")),
)
def report(session: SessionDep, proof_id: uuid.UUID) -> HTMLResponse:
    """One HTML file that needs nothing else: verdicts, intervals, arms, premise, settings and versions."""
    proof = repository.find_proof(session, proof_id)
    if proof.state is not State.SUCCEEDED:
        raise ProofNotReady(f"Proof {proof_id} is {proof.state}: poll it until its state is succeeded.")
    return HTMLResponse(
        render(to_response(proof)),
        headers={
            "Content-Security-Policy": STILL,
            "Content-Disposition": f'inline; filename="proof-{proof_id}.html"',
        },
    )


@router.delete(
    "/{proof_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete a proof",
    responses=empty(204, "It is gone, with its runs, scores, adapters and events.")
    | problems(
        NOT_FOUND,
        (ProofNotFinal, f"Proof {PROOF_ID} has not ended: cancel it first."),
        (Unavailable, "the artifact store /var/spice could not delete proofs/...: let the service write there"),
    ),
)
def delete(session: SessionDep, artifacts: ArtifactsDep, proof_id: uuid.UUID) -> None:
    """Delete a proof that has ended. A run that another proof has as well stays with that one."""
    service.delete(session, artifacts, proof_id)


@router.post(
    "/{proof_id}/cancel",
    response_model=ProofResponse,
    summary="Cancel a proof",
    responses=example(200, "The proof.", {**EXAMPLE_PROOF, "cancel_requested": True})
    | problems(NOT_FOUND, (ProofFinished, f"Proof {PROOF_ID} has succeeded and can't be cancelled.")),
)
def cancel(once: OnceDep, proof_id: uuid.UUID) -> Response:
    """Cancel a proof and its runs. What runs have ended serves other proofs, as do the checkpoints of the others."""
    return once.answer(
        lambda session: service.cancel(session, proof_id), lambda proof: Answer(to_response(proof), status.HTTP_200_OK)
    )
