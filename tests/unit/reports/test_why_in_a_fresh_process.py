"""The lookup of a row's scores in a process that has loaded what the API loads, and nothing of a worker."""

from __future__ import annotations

import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from app.core.storage import put_checked, row_scores_name
from app.core.storage.local import LocalArtifacts

if TYPE_CHECKING:
    from pathlib import Path

JOB = "7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a0"
PROGRAM = """
import sys, uuid
from pathlib import Path
from app.core.storage.local import LocalArtifacts
from app.results.job_files import JobFiles
from app.results.why import _scores
files = JobFiles(uuid.UUID(sys.argv[2]), LocalArtifacts(Path(sys.argv[1])), sessions=None, queue=None)
print([_scores(files, row) for row in (5, 6, 10)])
"""


def test_a_row_is_found_in_its_group_and_one_without_a_line_is_not(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"row": [1, 5, 9, 12], "loss": [0.5, None, 0.25, 1.0]}), path, row_group_size=2)
    put_checked(LocalArtifacts(tmp_path), row_scores_name(uuid.UUID(JOB)), path)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), JOB]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[{'row': 5}, {}, {}]", done.stderr
