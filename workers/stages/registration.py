"""Read a dataset that a client registered, and say what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.db.tables import Dataset, State
from app.core.lifecycle import leases
from app.core.uris.datasets import check_uri
from workers.data.describe import describe
from workers.data.fetch import fetch
from workers.runtime.context import current_process
from workers.runtime.task import run_leased

if TYPE_CHECKING:
    from workers.runtime.context import Process
    from workers.runtime.heartbeat import Keeper


def register_dataset(dataset_id: str, dispatch: int) -> None:
    """The queue's entry: fetch, read through, and store what was found."""
    process = current_process()
    run_leased(process, Dataset, dataset_id, dispatch, lambda keeper: _register(process, keeper))


def _register(process: Process, keeper: Keeper) -> None:
    with process.sessions() as session:
        dataset = session.get_one(Dataset, keeper.lease.id)
    uri = check_uri(dataset.uri, process.settings, dataset.format)
    snapshot = fetch(uri, process.settings, should_stop=keeper.should_stop)
    process.holds.take("dataset", snapshot.path)
    report = describe(snapshot, process.settings, should_stop=keeper.should_stop)
    with process.sessions() as session:
        leases.finish(
            session,
            keeper.lease,
            State.SUCCEEDED,
            rows=report.rows,
            bytes=report.bytes,
            columns=list(report.columns),
            shape=report.shape,
            fingerprint=report.fingerprint,
        )
        session.commit()
