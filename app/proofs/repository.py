"""Find and list proofs and their runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.db.tables import Proof
from app.core.lifecycle.proofs import runs_of
from app.http.problems import ProofNotFound

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from app.core.db.tables import ProofRun


def find_proof(session: Session, proof_id: uuid.UUID) -> Proof:
    """A proof by id; ProofNotFound if there is none."""
    proof = session.get(Proof, proof_id)
    if proof is None:
        raise ProofNotFound(f"No proof has the id {proof_id}.")
    return proof


def runs(session: Session, proof: Proof) -> Sequence[ProofRun]:
    """The runs of a proof; none before they are planned."""
    return runs_of(session, proof.id)
