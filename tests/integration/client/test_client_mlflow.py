"""A job and a proof in MLflow: a real service, a real client, a real store."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from app.cli import app as cli
from app.main import create_app
from spice_client import SpiceClient
from spice_client.mlflow_logging import NoResult, log_job, log_proof
from tests.integration.proofs.test_proofs import proof_body, prove, submit_proof
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow import MlflowClient

    from tests.integration.conftest import Service


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as MLflow makes it, with dozens of migrations; artifacts go to where it is made."""
    import mlflow  # noqa: PLC0415 - seconds, which no other test waits for

    directory = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert mlflow.MlflowClient(f"sqlite:///{directory}/empty.db").search_runs(["0"]) == []
    return directory / "empty.db"


@pytest.fixture
def tracking(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """An empty store of its own."""
    import mlflow  # noqa: PLC0415

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(None)
    yield mlflow.MlflowClient()
    while mlflow.active_run():
        mlflow.end_run()


def test_settings_numbers_curve_and_report_of_a_job_are_logged(
    service: Service, tracking: MlflowClient, tmp_path: Path
) -> None:
    import mlflow  # noqa: PLC0415

    found = service.run({**service.request(baselines=["random"]), "name": "nightly", "metadata": {"team": "search"}})
    with served(create_app(service.settings)) as url, SpiceClient(url) as client:
        job, curve = client.jobs.get(found["id"]), client.curve(found["id"])
        client.report(job, tmp_path / "report.html")
        run_id = log_job(job, curve, tmp_path / "report.html")
        with mlflow.start_run() as mine:
            assert log_job(job, curve) == mine.info.run_id, "the active run is logged to"
    run = tracking.get_run(run_id)
    assert run.info.run_name == "nightly"
    assert run.info.status == "FINISHED"
    assert run.data.params["spice.selection.conflict_penalty"] == "0.1"
    assert run.data.params["spice.dataset.uri"] == found["dataset"]["uri"]
    assert run.data.tags["spice.fingerprint"] == found["result"]["fingerprint"]
    assert run.data.tags["spice.metadata.team"] == "search"
    assert run.data.metrics["spice.final_log_det"] == pytest.approx(found["result"]["log_det"])
    assert run.data.metrics["spice.certificate"] == pytest.approx(found["result"]["certificate"]["value"])
    for suffix, line in (("", curve), (".random", curve.baselines["random"])):
        history = tracking.get_metric_history(run_id, f"spice.log_det{suffix}")
        assert [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)] == [
            (rank, pytest.approx(value)) for rank, value in zip(line.rank, line.log_det, strict=True)
        ]
    (report,) = tracking.list_artifacts(run_id, "spice")
    assert report.path == "spice/report.html"
    assert report.file_size == (tmp_path / "report.html").stat().st_size


def test_the_command_line_logs_the_report_that_it_saves(
    service: Service, tracking: MlflowClient, tmp_path: Path
) -> None:
    found = service.run(service.request())
    with served(create_app(service.settings)) as url:
        command = ["report", found["id"], "--output", str(tmp_path / "report.html"), "--mlflow", "--url", url]
        done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    (run,) = tracking.search_runs(["0"])
    assert run.info.run_id in done.output
    assert run.data.tags["spice.job_id"] == found["id"]
    assert (tmp_path / "report.html").exists()


def test_a_job_without_a_result_is_refused_and_leaves_no_run(service: Service, tracking: MlflowClient) -> None:
    done = service.run(service.request())
    waiting = service.submit(service.request())
    with served(create_app(service.settings)) as url, SpiceClient(url) as client:
        curve = client.curve(done["id"])
        with pytest.raises(NoResult, match="queued"):
            log_job(client.jobs.get(waiting), curve)
    assert tracking.search_runs(["0"]) == []


def test_means_differences_and_verdicts_of_a_proof_are_logged(
    service: Service, tracking: MlflowClient, tmp_path: Path
) -> None:
    found = prove(service, name="does it train better", metadata={"team": "search"})
    assert found["state"] == "succeeded", found["error"]
    with served(create_app(service.settings)) as url, SpiceClient(url) as client:
        proof = client.proofs.get(found["id"])
        client.proofs.report(proof, tmp_path / "proof.html")
        run_id = log_proof(proof, tmp_path / "proof.html")
        with pytest.raises(NoResult, match="queued"):
            log_proof(client.proofs.get(submit_proof(service, proof_body(service))))
    run = tracking.get_run(run_id)
    assert run.info.run_name == "does it train better"
    (compared,) = found["comparisons"]
    assert run.data.tags["spice.verdict.loss.selected"] == compared["verdict"]
    assert run.data.tags["spice.metadata.team"] == "search"
    assert run.data.params["spice.proof.seeds"] == "2"
    assert run.data.params["spice.proof.training.rank"] == "2"
    for arm in found["arms"]:
        assert run.data.metrics[f"spice.loss.{arm['name']}"] == pytest.approx(arm["mean"]["loss"])
    difference = "spice.loss.selected_against_random"
    assert run.data.metrics[difference] == pytest.approx(compared["difference"])
    assert run.data.metrics[f"{difference}.low"] == pytest.approx(compared["interval"][0])
    (report,) = tracking.list_artifacts(run_id, "spice")
    assert report.path == "spice/proof.html"
