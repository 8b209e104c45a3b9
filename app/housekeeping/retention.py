"""Delete artifacts by size and age, the least recently used first, and never an artifact that a job or a proof uses.

Each API process sweeps once an hour: an API process always runs, and a worker may compute for hours. Any number of
sweeps at the same time is harmless: a deletion locks its key, and an artifact that is already gone is no error.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import select

from app.core.db.tables import Job, Proof, ProofRun, State
from app.core.lifecycle.leases import OPEN
from app.core.lifecycle.sketch_use import pieces_in_use, retiring, used_keys
from app.core.lifecycle.upload_use import is_read
from app.core.storage import (
    CORPORA,
    PROOFS,
    ROWS,
    RUNS,
    SKETCHES,
    UPLOADS,
    USED,
    StorageFailed,
    pieces_prefix,
    proof_prefix,
    rows_prefix,
    run_prefix,
    sketches_prefix,
)
from app.core.uris.uploads import uploads_in

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from app.core.storage import ArtifactStore, Stored

logger = logging.getLogger(__name__)

GRACE_S = 600.0
"""Artifacts that were written in the last seconds stay: clocks differ, and another service may share the store."""
UNFINISHED_S = 86400.0
"""Age at which an unfinished write counts as abandoned, and pieces that no job reads as of no further use."""
ROWS_AT_ONCE = 1000
KEY = re.compile(r"[0-9a-f]{64}")
ROWS_FILE = re.compile(r"[a-z_0-9]+(?:-[0-9a-f]{32})?-([0-9a-f]{32})\.(?:safetensors|index)")
"""Files of what was computed for some rows and of their index, by the rows' name; or for a dataset, by its name."""
SHARD_NAME_BYTES = 16


@dataclass(slots=True)
class Group:
    """Objects that are deleted together: a key's shards, a run's files, a job's rows or a proof's.

    Attributes:
        name: The content key, or the job's or proof's id.
        bytes: Their size in all.
        used: Time of the last write to any of the objects, in seconds since 1970.
        objects: The objects.
    """

    name: str
    bytes: int = 0
    used: float = 0.0
    objects: list[Stored] = field(default_factory=list)


@dataclass(slots=True)
class Sketches:
    """Some rows' sketches, which are deleted together.

    Attributes:
        key: Their content key.
        names: Of the objects.
        bytes: Their size in all.
        used: When they were written, or when a job last said that it uses them, in seconds since 1970.
    """

    key: str
    names: list[str] = field(default_factory=list)
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
    removed += _sweep_pieces(sessions, artifacts, now)
    removed += _sweep_uploads(sessions, artifacts, settings, now)
    for prefix in removed:
        logger.info("retention: %s is deleted", prefix)
    return removed


def _sweep_sketches(sessions: Sessions, artifacts: ArtifactStore, settings: Settings, now: float) -> list[str]:
    """Delete shards that were not used for long, or the least recently used ones; whole keys once nothing is left."""
    groups, removed = _groups(artifacts, SKETCHES, now)
    limit, max_age = settings.artifacts_max_bytes, settings.artifacts_max_age_s
    if limit is None and max_age is None:
        return removed
    keys = {group.name: group for group in groups if KEY.fullmatch(group.name)}
    with sessions() as session:
        in_use = used_keys(session)
    shards = [shard for group in keys.values() for shard in _shards(artifacts, group, now)]
    total = sum(group.bytes for group in keys.values())
    counts = Counter(shard.key for shard in shards)
    free_to_go = [shard for shard in shards if now - shard.used >= GRACE_S and shard.key not in in_use]
    # Again where something could not be deleted: others go in its place.
    while goes := _surplus(free_to_go, total, settings, now):
        for key, some in goes.items():
            with retiring(sessions, key) as free:
                if free:
                    gone = _delete_shards(artifacts, keys[key], some, whole=len(some) == counts[key])
                    removed += gone.names
                    total -= gone.bytes
        free_to_go = [shard for shard in free_to_go if shard not in goes.get(shard.key, ())]
    if limit is not None and total > limit:
        logger.warning(
            "the sketches in %s take %d bytes, SPICE_ARTIFACTS_MAX_BYTES is %d: what is left is in use or was just now",
            artifacts.place,
            total,
            limit,
        )
    return removed


def _sweep_pieces(sessions: Sessions, artifacts: ArtifactStore, now: float) -> list[str]:
    """Delete the pieces of corpora that are a day old, but those that an open job reads: rows are soon read again."""
    groups, removed = _groups(artifacts, CORPORA, now)
    with sessions() as session:
        used = pieces_in_use(session)
    old = [group.name for group in groups if now - group.used > UNFINISHED_S and group.name not in used]
    return removed + [pieces_prefix(key) for key in old if _deleted(artifacts, pieces_prefix(key))]


def _sweep_uploads(sessions: Sessions, artifacts: ArtifactStore, settings: Settings, now: float) -> list[str]:
    """Delete uploaded files that are old and that no open work reads."""
    groups, removed = _groups(artifacts, UPLOADS, now)
    max_age = settings.uploads_max_age_s
    if max_age is None:
        return removed
    for group in groups:
        project_id = _id(group.name)
        old = {stored.name for stored in group.objects if now - stored.modified > max(max_age, GRACE_S)}
        for upload in [] if project_id is None else uploads_in(project_id, iter(sorted(old))):
            with sessions() as session:
                in_use = is_read(session, upload.uri)
            if not in_use:
                artifacts.remove(upload.artifact)
                removed.append(upload.artifact)
    return removed


def _surplus(shards: list[Sketches], total: int, settings: Settings, now: float) -> dict[str, list[Sketches]]:
    """Of shards that may be deleted those that are too old, and the least recently used beyond the limit, by key."""
    limit, max_age = settings.artifacts_max_bytes, settings.artifacts_max_age_s
    goes: dict[str, list[Sketches]] = {}
    for shard in sorted(shards, key=lambda shard: shard.used):
        if (max_age is not None and now - shard.used > max_age) or (limit is not None and total > limit):
            goes.setdefault(shard.key, []).append(shard)
            total -= shard.bytes
    return goes


def _shards(artifacts: ArtifactStore, group: Group, now: float) -> list[Sketches]:
    """What of a key can be deleted apart: its shards, each with its index; all of it where it has none.

    Lists of what jobs used are deleted once later lists, or deletions, leave them nothing to say.
    """
    found: dict[str, Sketches] = {}
    lists: list[tuple[Stored, set[str]]] = []
    for stored in group.objects:
        name = stored.name.rpartition("/")[2]
        if match := ROWS_FILE.fullmatch(name):
            shard = found.setdefault(match[1], Sketches(group.name))
            shard.names.append(stored.name)
            shard.bytes += stored.size
            shard.used = max(shard.used, stored.modified)
        elif name.startswith(USED):
            content = artifacts.read(stored.name) or b""
            parts = range(0, len(content), SHARD_NAME_BYTES)
            lists.append((stored, {content[start : start + SHARD_NAME_BYTES].hex() for start in parts}))
    if not found:
        return [Sketches(group.name, [stored.name for stored in group.objects], group.bytes, group.used)]
    told: set[str] = set()
    for stored, names in sorted(lists, key=lambda one: -one[0].modified):
        for name in names & found.keys():
            found[name].used = max(found[name].used, stored.modified)
        if not (names & found.keys()) - told and now - stored.modified > GRACE_S:
            artifacts.remove(stored.name)
        told |= names
    return list(found.values())


def _delete_shards(artifacts: ArtifactStore, group: Group, shards: list[Sketches], *, whole: bool) -> Sketches:
    """Delete some shards of a key, or the key; returns what was deleted."""
    prefix, gone = sketches_prefix(group.name), Sketches(group.name)
    if whole:
        return Sketches(group.name, [prefix], group.bytes) if _deleted(artifacts, prefix) else gone
    for shard in shards:
        try:
            for name in sorted(shard.names):  # the index first: it must not list what is gone
                artifacts.remove(name)
        except StorageFailed as error:
            logger.warning("retention: %s stays, and is tried again: %s", shard.names, error)
            continue
        gone.names += shard.names
        gone.bytes += shard.bytes
    return gone


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
            group.objects.append(stored)
            group.used = max(group.used, stored.modified)
    return list(groups.values()), removed


def _id(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name)
    except ValueError:
        return None
