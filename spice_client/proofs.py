"""Operations on proofs: submit, look, list, cancel, delete, wait, and what a proof came to."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from spice_client.downloads import Downloaded
from spice_client.downloads import download as download_file
from spice_client.models import Page, Proof
from spice_client.problems import ProofFailed, WaitTimedOut
from spice_client.steps import Ask, Pause, Steps, ask, ask_for, new_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spice_client.models import State
    from spice_client.results import Output

PROOFS = "/proofs"
ProofLike = Proof | UUID | str
"""A proof, or its id."""


def proof_path(proof: ProofLike, *parts: str) -> str:
    """Path of a proof, or of something of it."""
    return "/".join([PROOFS, quote(_id_of(proof), safe=""), *parts])


def submit(request: Mapping[str, Any], *, idempotency_key: str | None = None) -> Steps[Proof]:
    """Submit a proof: whether training on a selection gives a better model than training on other rows.

    Args:
        request: The body of `POST /proofs`: `job`, or `dataset`, `model` and `selection`; the rest has defaults.
        idempotency_key: Names this submission, as for a job.

    Returns:
        The queued proof.

    Raises:
        InvalidRequest: A field is wrong; `errors` names it.
        IdempotencyKeyInvalid: A header can't carry it.
    """
    return ask_for(Proof, Ask("POST", PROOFS, json=request, headers=new_key(idempotency_key)))


def get(proof: ProofLike) -> Steps[Proof]:
    """Look at a proof.

    Raises:
        NotFound: There is none with this id.
    """
    return ask_for(Proof, Ask("GET", proof_path(proof)))


def page(
    cursor: str | None = None, *, state: State | None = None, name: str | None = None, limit: int | None = None
) -> Steps[Page[Proof]]:
    """A page of the list of proofs, newest first; `next_cursor` asks for the next one."""
    params = {"state": state, "name": name, "limit": limit, "cursor": cursor}
    return ask_for(Page[Proof], Ask("GET", PROOFS, params=params))


def cancel(proof: ProofLike) -> Steps[Proof]:
    """Cancel a proof that has not ended, with its runs.

    Raises:
        Conflict: It has ended.
    """
    return ask_for(Proof, Ask("POST", proof_path(proof, "cancel"), headers=new_key()))


def delete(proof: ProofLike) -> Steps[None]:
    """Delete a proof that has ended, with its runs and files.

    Raises:
        Conflict: It has not ended: cancel it first.
    """
    yield from ask(Ask("DELETE", proof_path(proof)))


def runs(proof: ProofLike, *, items: bool = False) -> Steps[list[dict[str, Any]]]:
    """The runs of a proof with what became of each.

    Args:
        proof: The proof.
        items: What each run scored on each held-out row instead; there once the proof has succeeded.
    """
    params = {"format": "ndjson", "items": "true" if items else None}
    response = yield from ask(Ask("GET", proof_path(proof, "runs"), params=params))
    return [json.loads(line) for line in response.text.splitlines()]


def report(proof: ProofLike, output: Output = None) -> Steps[Downloaded]:
    """Save a proof's report: one HTML file with verdicts, intervals, arms and settings.

    Raises:
        Conflict: The proof has no result, or not yet.
    """
    request = Ask("GET", proof_path(proof, "report"), headers={"Accept": "text/html"})
    return download_file(request, output, f"proof-{_id_of(proof)}.html")


def wait(
    proof: ProofLike,
    *,
    timeout: float | None = None,
    every: float = 2.0,
    show: Callable[[Proof], None] | None = None,
    check: bool = True,
) -> Steps[Proof]:
    """Wait until a proof ends.

    Args:
        proof: The proof, or its id.
        timeout: Seconds to wait at most; None for ever. The proof goes on either way.
        every: Seconds between two looks.
        show: Told of the proof at every look.
        check: Whether a proof without a result is an exception.

    Raises:
        ProofFailed: The proof failed or was cancelled, and `check` is set.
        WaitTimedOut: The time is over.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        found = yield from get(proof)
        if show is not None:
            show(found)
        if found.ended:
            break
        if deadline is not None and time.monotonic() >= deadline:
            raise WaitTimedOut(_id_of(proof), timeout or 0.0)
        yield Pause(every)
    if check and found.state != "succeeded":
        raise ProofFailed(found)
    return found


def _id_of(proof: ProofLike) -> str:
    return str(proof.id if isinstance(proof, Proof) else proof)
