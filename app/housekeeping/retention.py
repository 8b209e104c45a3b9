"""Delete artifacts by size and age, the least recently used first, and never an artifact that a job or a proof uses.

Each API process sweeps once an hour: an API process always runs, and a worker may compute for hours. Any number of
sweeps at the same time is harmless: a deletion locks its key, and an artifact that is already gone is no error.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from app.core.db.tables import Job, Proof, ProofRun, State
from app.core.lifecycle.leases import OPEN
from app.core.lifecycle.sketch_use import retiring
from app.core.storage import (
    PROOFS,
    ROWS,
    RUNS,
    SKETCHES,
    StorageFailed,
    proof_prefix,
    rows_prefix,
    run_prefix,
    sketches_prefix,
)

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from app.core.storage import ArtifactStore

logger = logging.getLogger(__name__)

GRACE_S = 600.0
"""Artifacts that were written in the last seconds stay: clocks differ, and another service may share the store."""
UNFINISHED_S = 86400.0
"""Age at which an unfinished write counts as abandoned."""
ROWS_AT_ONCE = 1000
KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class Group:
    """Objects that are deleted together: a key's shards, a run's files, a job's rows or a proof's.

    Attributes:
        name: The content key, or the job's or proof's id.
        bytes: Their size in all.
        used: Time of the last write to any of the objects, in seconds since 1970. A job that uses a key writes one of
            its objects again.
    """

    name: str
    bytes: int = 0
    used: float = 0.0


def sweep(sessions: Sessions, artifacts: ArtifactStore, settings: Settings, now: float | None = None) -> list[str]:
    """Sweep once.

    Args:
        sessions: The database that knows the jobs.
        artifacts: The store.
        settings: The limits.
        now: Seconds since 1970.

    Returns:
        The prefixes and names that were deleted.

    Raises:
        StorageFailed: The store can't be listed.
        SQLAlchemyError: Postgres does not answer.
    """
    now = time.time() if now is None else now
    removed = _sweep_files(sessions, artifacts, settings, now, Job)
    removed += _sweep_files(sessions, artifacts, settings, now, Proof)
    removed += _sweep_runs(sessions, artifacts, settings, now)
    removed += _sweep_sketches(sessions, artifacts, settings, now)
    for prefix in removed:
        logger.info("retention: %s is deleted", prefix)
    return removed


def _sweep_sketches(sessions: Sessions, artifacts: ArtifactStore, settings: Settings, now: float) -> list[str]:
    groups, removed = _groups(artifacts, SKETCHES, now)
    keys = sorted((group for group in groups if KEY.fullmatch(group.name)), key=lambda group: group.used)
    limit, max_age = settings.artifacts_max_bytes, settings.artifacts_max_age_s
    total = sum(group.bytes for group in keys)
    for group in keys:
        age = now - group.used
        too_old = max_age is not None and age > max_age
        too_much = limit is not None and total > limit
        if age < GRACE_S or not (too_old or too_much):
            continue
        with retiring(sessions, group.name) as free:
            if free and _deleted(artifacts, sketches_prefix(group.name)):
                removed.append(sketches_prefix(group.name))
                total -= group.bytes
    if limit is not None and total > limit:
        logger.warning(
            "the sketches in %s take %d bytes, SPICE_ARTIFACTS_MAX_BYTES is %d: what is left is in use or was just now",
            artifacts.place,
            total,
            limit,
        )
    return removed


def _sweep_runs(sessions: Sessions, artifacts: ArtifactStore, settings: Settings, now: float) -> list[str]:
    """Delete scores, adapters and checkpoints of runs that are old and of no proof that goes on.

    A run that begins during a deletion is trained again.
    """
    max_age = settings.artifacts_max_age_s
    if max_age is None:
        return []
    groups, removed = _groups(artifacts, RUNS, now)
    old = [group.name for group in groups if KEY.fullmatch(group.name) and now - group.used > max(max_age, GRACE_S)]
    open_proof = select(Proof.id).where(Proof.id == ProofRun.proof_id, Proof.state.in_(OPEN)).exists()
    for first in range(0, len(old), ROWS_AT_ONCE):
        names = old[first : first + ROWS_AT_ONCE]
        with sessions() as session:
            used = set(session.scalars(select(ProofRun.key).where(ProofRun.key.in_(names), open_proof)))
        removed += [run_prefix(name) for name in names if name not in used and _deleted(artifacts, run_prefix(name))]
    return removed


def _sweep_files(
    sessions: Sessions, artifacts: ArtifactStore, settings: Settings, now: float, table: type[Job | Proof]
) -> list[str]:
    """Delete files of jobs or proofs without a result, and old ones. Those of unknown ids may be another service's."""
    everything, prefix_of = (ROWS, rows_prefix) if table is Job else (PROOFS, proof_prefix)
    groups, removed = _groups(artifacts, everything, now)
    for first in range(0, len(groups), ROWS_AT_ONCE):
        files = {row_id: group for group in groups[first : first + ROWS_AT_ONCE] if (row_id := _id(group.name))}
        with sessions() as session:
            known = session.execute(select(table.id, table.state).where(table.id.in_(files)))
            states = {row.id: row.state for row in known}
        for row_id, group in files.items():
            state, age = states.get(row_id), now - group.used
            too_old = settings.rows_max_age_s is not None and age > settings.rows_max_age_s
            useless = state in (State.FAILED, State.CANCELLED) and age > GRACE_S
            if state not in OPEN and (too_old or useless) and _deleted(artifacts, prefix_of(row_id)):
                removed.append(prefix_of(row_id))
    return removed


def _deleted(artifacts: ArtifactStore, prefix: str) -> bool:
    """Delete all objects below a prefix; False if the store fails, and the sweep continues."""
    try:
        artifacts.remove_all(prefix)
    except StorageFailed as error:
        logger.warning("retention: %s stays, and is tried again: %s", prefix, error)
        return False
    return True


def _groups(artifacts: ArtifactStore, prefix: str, now: float) -> tuple[list[Group], list[str]]:
    """Objects below a prefix, grouped by the next part of their names; and the unfinished objects that were deleted."""
    groups: dict[str, Group] = {}
    removed = []
    for stored in artifacts.list(prefix):
        name, _, rest = stored.name.removeprefix(prefix).partition("/")
        if rest.startswith(".") and now - stored.modified > UNFINISHED_S:
            artifacts.remove(stored.name)
            removed.append(stored.name)
        elif rest:
            group = groups.setdefault(name, Group(name))
            group.bytes += stored.size
            group.used = max(group.used, stored.modified)
    return list(groups.values()), removed


def _id(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name)
    except ValueError:
        return None
