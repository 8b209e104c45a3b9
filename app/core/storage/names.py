"""How artifacts are named: one layout, known here alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uuid

SKETCHES = "sketches/"
ROWS = "jobs/"
CORPORA = "corpora/"
USED = "used-"
"""What the names of lists of shards that a job uses begin with, below their key."""
PROOFS = "proofs/"
RUNS = "runs/"
UPLOADS = "uploads/"


def pieces_prefix(key: str) -> str:
    """What the names of the pieces of a corpus begin with."""
    return f"{CORPORA}{key}/"


def piece_name(key: str, number: int) -> str:
    """One piece of a corpus."""
    return f"{pieces_prefix(key)}{number:06}.safetensors"


def cut_name(key: str) -> str:
    """How the dataset of a corpus is cut into the ranges that its pieces are made of."""
    return f"{pieces_prefix(key)}cut.safetensors"


def sketches_prefix(key: str) -> str:
    """What the names of all objects of a sketch key begin with."""
    return f"{SKETCHES}{key}/"


def scored_name(key: str) -> str:
    """What the sketches of a key are of, as the engine that made them says it."""
    return f"{sketches_prefix(key)}scored.safetensors"


def rows_prefix(job_id: uuid.UUID) -> str:
    """What the names of all objects of a job begin with."""
    return f"{ROWS}{job_id}/"


def uploads_prefix(project_id: uuid.UUID) -> str:
    """What the names of all uploaded files of a project begin with."""
    return f"{UPLOADS}{project_id}/"


def upload_prefix(project_id: uuid.UUID, digest: str) -> str:
    """What the names of the uploaded files of one content begin with: the same bytes may have several names."""
    return f"{uploads_prefix(project_id)}{digest}/"


def schedule_name(key: str) -> str:
    """What a schedule came to, beside its sketches: windows, picks, steps."""
    return f"{sketches_prefix(key)}outcome.safetensors"


def schedule_point_name(key: str) -> str:
    """The checkpoint of a schedule that goes on: adapter, optimizer, and what was picked so far."""
    return f"{sketches_prefix(key)}schedule.safetensors"


def subset_name(job_id: uuid.UUID, made_by: str, format: str) -> str:  # noqa: A002 - the field's name
    """The picks of a job as a file, as one version of the service writes it."""
    return f"{rows_prefix(job_id)}subset-{made_by}.{format}"


def rows_name(job_id: uuid.UUID, format: str) -> str:  # noqa: A002 - the field's name
    """The picked rows of a job, in the dataset's own format."""
    return f"{rows_prefix(job_id)}rows.{format}"


def excerpts_name(job_id: uuid.UUID) -> str:
    """The picked rows of a job as text to look through, one JSON line a pick, best pick first."""
    return f"{rows_prefix(job_id)}excerpts.jsonl"


def proof_prefix(proof_id: uuid.UUID) -> str:
    """What the names of all objects of a proof begin with, but those of its runs."""
    return f"{PROOFS}{proof_id}/"


def run_prefix(key: str) -> str:
    """What the names of all objects of a run begin with: it is any proof's that asks for the same."""
    return f"{RUNS}{key}/"


def run_outcome_name(key: str) -> str:
    """The scores of a run, item by item."""
    return f"{run_prefix(key)}outcome.safetensors"


def held_out_name(proof_id: uuid.UUID) -> str:
    """The held-out rows of a proof, as tokens."""
    return f"{proof_prefix(proof_id)}held_out.safetensors"


def scores_name(proof_id: uuid.UUID) -> str:
    """The scores of a proof's runs, item by item, as Parquet: arm, seed, metric, row, score."""
    return f"{proof_prefix(proof_id)}scores.parquet"


def arms_name(proof_id: uuid.UUID) -> str:
    """The rows of each arm of a proof."""
    return f"{proof_prefix(proof_id)}arms.safetensors"


def candidates_name(job_id: uuid.UUID) -> str:
    """Which rows a job may pick and as how long, for the workers that select from parts of them or from windows."""
    return f"{rows_prefix(job_id)}candidates.safetensors"


def picks_name(job_id: uuid.UUID) -> str:
    """Digests of a job's picks in the order of picking, 16 bytes each: which rows they are, whatever their numbers."""
    return f"{rows_prefix(job_id)}picks.digests"


def row_scores_name(job_id: uuid.UUID) -> str:
    """The figures of a job's rows, one Parquet row a usable row of the dataset."""
    return f"{rows_prefix(job_id)}scores.parquet"


def suspects_name(job_id: uuid.UUID) -> str:
    """The rows of a job that look most wrong, as text to look through, one JSON line a row, the worst first."""
    return f"{rows_prefix(job_id)}suspects.jsonl"
