"""The last stage: the picked rows as a file, and everything else in one transaction."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from app.artifacts import rows_name
from app.db import leases, selections
from app.db.selections import MAIN, Head, Picks
from app.db.tables import Stage, State
from workers.conflict_statistics import conflict_statistics
from workers.data.export import write_rows
from workers.selection.compare import jaccard
from workers.stopping import Stopped

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from app.db.tables import Json
    from workers.data.fetch import Snapshot
    from workers.data.rejection import Reason
    from workers.keeper import Keeper
    from workers.process import Process
    from workers.reading import Reading
    from workers.selection import Selection

ROWS_NAMED = 100
"""Row numbers of each reason that a job's own document names; all are at `/jobs/{id}/rejected`."""


@dataclass(frozen=True, slots=True)
class Published:
    """All that a job found.

    Attributes:
        reading: The dataset.
        rows: Row number of each candidate, shape (n,), int64.
        rejected: Row numbers of the rows that can't be used, by reason.
        chosen: The selections by label, `main` among them; their indices are places in `rows`.
        method: The method of the main one.
        sketches: Content key.
        sketches_reused: Whether this job had to compute none.
        seconds: Time of each stage so far.
    """

    reading: Reading
    rows: NDArray[np.int64]
    rejected: Mapping[Reason, list[int]]
    chosen: Mapping[str, Selection]
    method: str
    sketches: str
    sketches_reused: bool
    seconds: dict[str, float]


def publish(process: Process, keeper: Keeper, published: Published) -> None:
    """Write the rows, then commit the rest with the job's success.

    Raises:
        Stopped: The job was cancelled or lost meanwhile. Nothing of it is in Postgres.
    """
    began = time.monotonic()
    picked = published.rows[published.chosen[MAIN].indices]
    keeper.enter(Stage.PUBLISHING, len(picked), "picks")
    _keep_rows(process, keeper.lease.id, published.reading.snapshot, picked)
    with process.sessions() as session:
        result = _result(published, time.monotonic() - began)
        # Before the picks: whoever else writes to the job waits for this transaction from here on.
        if not leases.finish(
            session, keeper.lease, State.SUCCEEDED, result=result, stage=None, progress=None, plan=None
        ):
            session.rollback()
            raise Stopped
        for label, selection in published.chosen.items():
            head = Head(
                label=label,
                method=published.method if label == MAIN else label,
                log_det=float(selection.log_det[-1]),
                conflicts=conflict_statistics(selection),
            )
            picks = _picks(selection, published.rows)
            selections.store(session, keeper.lease.id, head, picks, process.settings.chunk_rows)
        rejected = {str(reason): rows for reason, rows in published.rejected.items()}
        selections.store_rejected(session, keeper.lease.id, rejected)
        session.commit()


def _keep_rows(process: Process, job_id: uuid.UUID, snapshot: Snapshot, picked: NDArray[np.int64]) -> None:
    """Write the picked rows on this machine and hand the file to the store, which shows it whole or not at all."""
    directory = process.settings.cache_path / "rows"
    directory.mkdir(parents=True, exist_ok=True)
    written = directory / f".{job_id}-{secrets.token_hex(4)}.{snapshot.format}"
    try:
        write_rows(snapshot, picked, written, process.settings)
        process.artifacts.put(rows_name(job_id, snapshot.format), written)
    finally:
        written.unlink(missing_ok=True)


def _result(published: Published, publishing_s: float) -> Json:
    main = published.chosen[MAIN]
    guarantees = main.guarantees
    corpus = published.reading.corpus
    return {
        "rows_total": corpus.rows_total,
        "rows_usable": len(published.rows),
        "selected": len(main.indices),
        "truncated": corpus.truncated,
        "rejected": [
            {"reason": reason, "count": len(rows), "rows": rows[:ROWS_NAMED]}
            for reason, rows in sorted(published.rejected.items())
        ],
        "tokens": corpus.tokens,
        "log_det": float(main.log_det[-1]),
        "alpha": main.alpha,
        "stop_reason": main.stop_reason,
        "certificate": {
            "value": guarantees.certificate,
            "optimum_upper_bound": guarantees.optimum_upper_bound,
            "additive_bound": guarantees.additive_bound,
            "curvature": guarantees.curvature,
            "curvature_factor": guarantees.curvature_factor,
            "epsilon_bound_violations": guarantees.epsilon_bound_violations,
        },
        "mean_conflict": float(main.conflicts.mean()),
        "format": published.reading.snapshot.format,
        "fingerprint": published.reading.snapshot.fingerprint,
        "model_revision": published.reading.model.revision,
        "sketches": published.sketches,
        "sketches_reused": published.sketches_reused,
        "seconds": {**published.seconds, Stage.PUBLISHING: round(publishing_s, 3)},
        "baselines": {
            label: {
                "log_det": float(one.log_det[-1]),
                "mean_conflict": float(one.conflicts.mean()),
                "overlap": jaccard(main.indices, one.indices),
            }
            for label, one in published.chosen.items()
            if label != MAIN
        },
        "versions": {name: version(name) for name in ("spice-select", "torch", "transformers")},
    }


def _picks(selection: Selection, rows: NDArray[np.int64]) -> Picks:
    return Picks(
        indices=rows[selection.indices].tolist(),
        marginal_gains=selection.marginal_gains.tolist(),
        epsilons=selection.epsilons.tolist(),
        conflicts=selection.conflicts.tolist(),
        log_det=selection.log_det.tolist(),
    )
