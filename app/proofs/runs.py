"""The runs of a proof as NDJSON or Parquet: one row a run, or one row a run, metric and held-out row."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.core.storage import Damaged, StorageFailed, read_checked, scores_name
from app.http.media_types import most_accepted
from app.http.problems import NotAcceptable, ScoresDamaged, ScoresNotReady, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from app.core.db.tables import Proof, ProofRun
    from app.core.storage import ArtifactStore

MEDIA_TYPES = {"ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
RUN_FIELDS = [
    pa.field("arm", pa.string()),
    pa.field("seed", pa.int64()),
    pa.field("state", pa.string()),
    pa.field("metrics", pa.string()),
    pa.field("rows", pa.int64()),
    pa.field("tokens", pa.int64()),
    pa.field("steps", pa.int64()),
    pa.field("seconds", pa.float64()),
    pa.field("train_loss", pa.float64()),
    pa.field("reused", pa.bool_()),
    pa.field("worker", pa.string()),
    pa.field("key", pa.string()),
    pa.field("error", pa.string()),
]


def chosen_format(given: str | None, accept: str | None) -> str:
    """The format asked for, by name or by `Accept`.

    Raises:
        NotAcceptable: There is none of the media types.
    """
    if given is not None:
        return given
    kind = most_accepted(accept, tuple(MEDIA_TYPES.values()))
    if kind is None:
        raise NotAcceptable(f"Accept is {accept!r}, but runs come as {', '.join(MEDIA_TYPES.values())}.")
    return next(name for name, media_type in MEDIA_TYPES.items() if media_type == kind)


def runs_file(runs: Sequence[ProofRun], kind: str) -> bytes:
    """The runs, one row each."""
    rows = [_run(run) for run in runs]
    if kind == "ndjson":
        return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)
    flat = [
        {**row, "metrics": json.dumps(row["metrics"]), "error": row["error"] and json.dumps(row["error"])}
        for row in rows
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(flat, schema=pa.schema(RUN_FIELDS)), sink, compression="zstd")
    return sink.getvalue()


def scores_file(artifacts: ArtifactStore, proof: Proof, kind: str) -> Iterator[bytes]:
    """The scores of all runs on all held-out rows.

    Raises:
        ScoresNotReady: The proof has not succeeded, or its files are gone.
        ScoresDamaged: They are not what was published.
        Unavailable: The store does not answer.
    """
    try:
        content = read_checked(artifacts, scores_name(proof.id))
    except Damaged as error:
        raise ScoresDamaged(str(error)) from error
    except StorageFailed as error:
        raise Unavailable(str(error)) from error
    if content is None:
        raise ScoresNotReady(
            f"The scores of proof {proof.id} are there once it has succeeded, for as long as the store keeps them."
        )
    return iter([content]) if kind == "parquet" else _lines(content)


def _lines(content: bytes) -> Iterator[bytes]:
    for batch in pq.ParquetFile(io.BytesIO(content)).iter_batches():
        yield b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in batch.to_pylist())


def _run(run: ProofRun) -> dict[str, Any]:
    outcome = run.outcome or {}
    return {
        "arm": run.arm,
        "seed": run.seed,
        "state": run.state.value,
        "metrics": outcome.get("metrics", {}),
        **{name: outcome.get(name) for name in ("rows", "tokens")},
        "steps": run.steps,
        **{name: outcome.get(name) for name in ("seconds", "train_loss")},
        "reused": run.reused,
        "worker": run.worker,
        "key": run.key,
        "error": run.error,
    }
