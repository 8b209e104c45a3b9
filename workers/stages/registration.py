"""Read a registered dataset, and store its rows, columns, bytes and fingerprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.db.tables import Dataset, State
from app.core.lifecycle import leases
from app.core.uris.datasets import check_uris
from workers.data.describe import describe
from workers.data.fetch import fetch
from workers.runtime.context import current_context
from workers.runtime.task import run_leased

if TYPE_CHECKING:
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat


def register_dataset(dataset_id: str, dispatch: int) -> None:
    """Fetch the dataset, read it, and store the findings."""
    context = current_context()
    run_leased(context, Dataset, dataset_id, dispatch, lambda heartbeat: _register(context, heartbeat))


def _register(context: WorkerContext, heartbeat: LeaseHeartbeat) -> None:
    with context.sessions() as session:
        dataset = session.get_one(Dataset, heartbeat.lease.id)
    uri = check_uris(dataset.every_uri, context.settings, dataset.format)
    snapshot = fetch(uri, context.settings, should_stop=heartbeat.should_stop)
    context.holds.take("dataset", snapshot.path)
    report = describe(snapshot, context.settings, should_stop=heartbeat.should_stop)
    with context.sessions() as session:
        leases.finish(
            session,
            heartbeat.lease,
            State.SUCCEEDED,
            rows=report.rows,
            bytes=report.bytes,
            columns=list(report.columns),
            shape=report.shape,
            fingerprint=report.fingerprint,
            sources=report.sources,
        )
        session.commit()
