"""From a proof's row to what clients see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.core.contracts.proof_request import ProofRequest
from app.core.db.tables import State
from app.proofs.schemas import ProofLinks, ProofResponse, ProofSettings, ProofWorker
from app.proofs.words import summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.core.db.tables import Proof, ProofRun

NOTHING: dict[str, Any] = {
    "held_out": None,
    "arms": [],
    "comparisons": [],
    "premise": None,
    "cost": None,
    "failed_runs": 0,
    "notes": [],
    "summary": [],
    "versions": {},
}
"""What a proof has found before it has ended."""


def to_response(proof: Proof, runs: Sequence[ProofRun] = ()) -> ProofResponse:
    """The proof as clients see it, with the workers of its runs."""
    url = f"/proofs/{proof.id}"
    request = ProofRequest.model_validate(proof.request)
    response = ProofResponse.model_validate(
        {
            **NOTHING,
            **(proof.result or {}),
            "id": proof.id,
            "name": proof.name,
            "metadata": proof.metadata_,
            "state": proof.state,
            "stage": proof.stage,
            "progress": proof.progress,
            "workers": [_worker(run) for run in runs if run.state is State.RUNNING],
            "cancel_requested": proof.cancel_requested_at is not None,
            "job": proof.job_id,
            "settings": ProofSettings(
                arms=list(request.arms),
                against=request.against,
                held_out=request.held_out,
                seeds=request.seeds,
                training=request.training,
                metrics=list(request.metrics),
                smallest_effect=request.effects,
                premise=request.premise,
            ),
            "error": proof.error,
            "created_at": proof.created_at,
            "started_at": proof.started_at,
            "finished_at": proof.finished_at,
            "updated_at": proof.updated_at,
            "timeout_s": proof.timeout_s,
            "expires_at": proof.expires_at,
            "webhook": _webhook(proof),
            "links": ProofLinks(
                self=url,
                job=None if proof.job_id is None else f"/jobs/{proof.job_id}",
                events=f"{url}/events",
                runs=f"{url}/runs",
                report=f"{url}/report" if proof.state is State.SUCCEEDED else None,
            ),
        }
    )
    if proof.result is None:
        return response
    said = summary(response.comparisons, response.premise, response.cost, response.notes)
    return response.model_copy(update={"summary": said})


def _worker(run: ProofRun) -> ProofWorker:
    progress = run.progress or {}
    return ProofWorker(
        worker=run.worker or "",
        arm=run.arm,
        seed=run.seed,
        done=progress.get("done", 0),
        total=run.steps,
        tokens_per_s=progress.get("tokens_per_s"),
    )


def _webhook(proof: Proof) -> dict[str, Any] | None:
    """What came of the message that the proof owes, if it owes one."""
    wanted = proof.request.get("webhook")
    if wanted is None:
        return None
    waiting = {"state": "waiting", "attempts": 0, "status": None, "error": None}
    return {**wanted, **(proof.webhook or waiting), "next_attempt_at": proof.webhook_due_at}
