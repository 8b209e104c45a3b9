"""The artifact store: sketches and picked rows, in a directory or in an S3-compatible bucket.

One setting says where (`SPICE_ARTIFACTS_URL`), `open_artifacts` opens it, and everything else goes by names:

    sketches/<key>/manifest.json, shard-00000.safetensors, ..., used
    jobs/<id>/rows.<format>, excerpts.jsonl, and the checksums of the rows: rows.<format>.sums
"""

from __future__ import annotations

from app.core.storage.checksums import Damaged, checked, put_checked
from app.core.storage.names import ROWS, SKETCHES, excerpts_name, rows_name, rows_prefix, sketches_prefix, subset_name
from app.core.storage.opening import open_artifacts
from app.core.storage.store import ArtifactStore, StorageAway, StorageFailed, Stored

__all__ = [
    "ROWS",
    "SKETCHES",
    "ArtifactStore",
    "Damaged",
    "StorageAway",
    "StorageFailed",
    "Stored",
    "checked",
    "excerpts_name",
    "open_artifacts",
    "put_checked",
    "rows_name",
    "rows_prefix",
    "sketches_prefix",
    "subset_name",
]
