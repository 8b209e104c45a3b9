"""Log a selection to MLflow: its settings, its numbers, its curve step by step, its report. Or a proof, likewise.

Needs the extra `mlflow` (`pip install '.[mlflow]' in the repository`), or any MLflow of version 3.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow.entities import Metric

    from spice_client.models import Curve, CurveLine, Job, Proof

METRICS_AT_ONCE = 1000
"""What MLflow takes in one request."""

LONGEST_PARAM = 6000
"""Characters of a parameter's value that MLflow takes."""


class NoResult(ValueError):
    """The job or the proof has not succeeded: there is nothing to log."""


def log_job(job: Job, curve: Curve, report: Path | None = None) -> str:
    """Log a finished job to the MLflow run that is active, or to a new one of the job's name.

    Args:
        job: The job, succeeded: `client.jobs.get(id)`.
        curve: Its curve: `client.curve(id)`. Each point is a metric at the step of its rank.
        report: The saved report, kept as an artifact.

    Returns:
        The id of the run.

    Raises:
        NoResult: The job has not succeeded.
        ModuleNotFoundError: MLflow is not installed.
    """
    import mlflow  # noqa: PLC0415 - an extra, and seconds to load

    if job.result is None:
        raise NoResult(f"job {job.id} ({job.state}) has no result to log")
    with _run(job.name or f"spice {str(job.id)[:8]}", report) as run_id:
        client = mlflow.MlflowClient()
        mlflow.log_params(_params(job))
        mlflow.set_tags(_tags(job))
        mlflow.log_metrics(_numbers(job))
        for metrics in _in_batches(curve):
            client.log_batch(run_id, metrics=metrics)
    return run_id


def log_proof(proof: Proof, report: Path | None = None) -> str:
    """Log a finished proof to the MLflow run that is active, or to a new one of the proof's name.

    Args:
        proof: The proof, succeeded: `client.proofs.get(id)`. Each arm's mean is a metric, and so are each difference
            and the ends of its interval; verdicts are tags.
        report: The saved report, kept as an artifact.

    Returns:
        The id of the run.

    Raises:
        NoResult: The proof has not succeeded.
        ModuleNotFoundError: MLflow is not installed.
    """
    import mlflow  # noqa: PLC0415 - as above

    if proof.state != "succeeded":
        raise NoResult(f"proof {proof.id} ({proof.state}) has no result to log")
    with _run(proof.name or f"spice proof {str(proof.id)[:8]}", report) as run_id:
        settings = {f"spice.{name}": value[:LONGEST_PARAM] for name, value in _flat(proof.settings, "proof.")}
        mlflow.log_params(settings)
        mlflow.set_tags(_tags_of_proof(proof))
        mlflow.log_metrics(dict(_numbers_of_proof(proof)))
    return run_id


@contextmanager
def _run(name: str, report: Path | None) -> Iterator[str]:
    """The id of the active run, or of a new one that ends with the block; the report is kept in it at the end."""
    import mlflow  # noqa: PLC0415 - as above

    active = mlflow.active_run()
    run = active or mlflow.start_run(run_name=name)
    try:
        yield str(run.info.run_id)
        if report is not None:
            mlflow.log_artifact(str(report), "spice")
    finally:
        if active is None:
            mlflow.end_run()


def _params(job: Job) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in ("dataset", "model", "gradients", "selection"):
        fields = getattr(job, part).model_dump(mode="json", exclude_none=True)
        found |= {f"spice.{name}": value[:LONGEST_PARAM] for name, value in _flat(fields, f"{part}.")}
    return found


def _flat(fields: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _tags(job: Job) -> dict[str, str]:
    assert job.result is not None  # noqa: S101 - looked at before
    made_from = {name: getattr(job.result, name) for name in ("fingerprint", "model_revision", "sketches")}
    versions = {f"version.{name}": number for name, number in job.result.versions.items()}
    notes = {f"metadata.{name}": value for name, value in job.metadata.items()}
    return {f"spice.{name}": value for name, value in {"job_id": str(job.id), **made_from, **versions, **notes}.items()}


def _numbers(job: Job) -> dict[str, float]:
    result = job.result
    assert result is not None  # noqa: S101 - looked at before
    return {
        "spice.selected": result.selected,
        "spice.rows_usable": result.rows_usable,
        "spice.tokens": result.tokens,
        "spice.final_log_det": result.log_det,
        "spice.certificate": result.certificate.value,
        "spice.mean_conflict": result.mean_conflict,
        **{f"spice.seconds.{stage}": seconds for stage, seconds in result.seconds.items()},
        **{f"spice.final_log_det.{name}": one.log_det for name, one in result.baselines.items()},
    }


def _tags_of_proof(proof: Proof) -> dict[str, str]:
    verdicts = {f"verdict.{one.metric}.{one.arm}": one.verdict for one in proof.comparisons}
    versions = {f"version.{name}": number for name, number in proof.versions.items()}
    notes = {f"metadata.{name}": value for name, value in proof.metadata.items()}
    tags = {"proof_id": str(proof.id), "job_id": str(proof.job), **verdicts, **versions, **notes}
    return {f"spice.{name}": value for name, value in tags.items()}


def _numbers_of_proof(proof: Proof) -> Iterator[tuple[str, float]]:
    for arm in proof.arms:
        yield f"spice.rows.{arm.name}", arm.rows
        yield f"spice.tokens.{arm.name}", arm.tokens
        for metric, mean in arm.mean.items():
            yield f"spice.{metric}.{arm.name}", mean
    for one in proof.comparisons:
        if one.difference is not None and one.interval is not None:
            name = f"spice.{one.metric}.{one.arm}_against_{one.against}"
            yield name, one.difference
            yield f"{name}.low", one.interval[0]
            yield f"{name}.high", one.interval[1]


def _in_batches(curve: Curve) -> Iterator[list[Metric]]:
    from mlflow.entities import Metric  # noqa: PLC0415 - as above

    now = int(time.time() * 1000)
    lines: list[tuple[str, CurveLine]] = [("", curve), *((f".{name}", line) for name, line in curve.baselines.items())]
    points = (
        Metric(f"spice.{field}{suffix}", value, now, rank)
        for suffix, line in lines
        for field in ("log_det", "marginal_gains")
        for rank, value in zip(line.rank, getattr(line, field), strict=True)
    )
    while batch := list(islice(points, METRICS_AT_ONCE)):
        yield batch
