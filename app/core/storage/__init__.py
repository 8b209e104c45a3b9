"""The artifact store: sketches and picked rows, in a directory or in an S3-compatible bucket.

One setting says where (`SPICE_ARTIFACTS_URL`), `open_artifacts` opens it, and everything else goes by names:

    corpora/<key>/<number>.safetensors, cut.safetensors
    sketches/<key>/shard-<hash>.safetensors, shard-<hash>.index, ..., shards-<number>-<hash>.index,
        scored.safetensors, used-<hash>, outcome.safetensors and schedule.safetensors of a schedule
    jobs/<id>/rows.<format>, excerpts.jsonl, scores.parquet, suspects.jsonl, picks.digests, candidates.safetensors
    proofs/<id>/held_out.safetensors, arms.safetensors, scores.parquet
    runs/<key>/outcome.safetensors, checkpoint/..., adapter/...
    uploads/<project>/<SHA-256>/<name>

Nothing of it is taken for good unseen: a `.safetensors` carries its own checksum, an upload is named by its own, and
beside the files of jobs, and the scores of proofs, lie checksums.<file>.
"""

from __future__ import annotations

from app.core.storage.checksums import (
    Damaged,
    check_size,
    checked,
    is_as_published,
    is_damaged,
    open_checked,
    put_checked,
    read_checked,
    write_checked,
)
from app.core.storage.names import (
    CORPORA,
    PROOFS,
    ROWS,
    RUNS,
    SKETCHES,
    UPLOADS,
    USED,
    arms_name,
    candidates_name,
    cut_name,
    excerpts_name,
    held_out_name,
    picks_name,
    piece_name,
    pieces_prefix,
    proof_prefix,
    row_scores_name,
    rows_name,
    rows_prefix,
    run_outcome_name,
    run_prefix,
    schedule_name,
    schedule_point_name,
    scored_name,
    scores_name,
    sketches_prefix,
    subset_name,
    suspects_name,
    upload_prefix,
    uploads_prefix,
)
from app.core.storage.opening import open_artifacts
from app.core.storage.store import ArtifactStore, StorageAway, StorageFailed, Stored

__all__ = [
    "CORPORA",
    "PROOFS",
    "ROWS",
    "RUNS",
    "SKETCHES",
    "UPLOADS",
    "USED",
    "ArtifactStore",
    "Damaged",
    "StorageAway",
    "StorageFailed",
    "Stored",
    "arms_name",
    "candidates_name",
    "check_size",
    "checked",
    "cut_name",
    "excerpts_name",
    "held_out_name",
    "is_as_published",
    "is_damaged",
    "open_artifacts",
    "open_checked",
    "picks_name",
    "piece_name",
    "pieces_prefix",
    "proof_prefix",
    "put_checked",
    "read_checked",
    "row_scores_name",
    "rows_name",
    "rows_prefix",
    "run_outcome_name",
    "run_prefix",
    "schedule_name",
    "schedule_point_name",
    "scored_name",
    "scores_name",
    "sketches_prefix",
    "subset_name",
    "suspects_name",
    "upload_prefix",
    "uploads_prefix",
    "write_checked",
]
