"""The commands against the real service: a real database, queue and worker, the tiny model."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest
from typer.testing import CliRunner, Result

from app.cli import app as spice
from app.core.db.migrate import upgrade
from app.local.process import free_port
from app.main import create_app
from tests.integration.conftest import real_rows
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Service


@pytest.fixture
def url(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with served(create_app(service.settings)) as url:
        monkeypatch.setenv("SPICE_API_URL", url)
        yield url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(spice, list(arguments))


@pytest.mark.usefixtures("url")
def test_from_the_file_to_the_picked_rows(service: Service, tmp_path: Path) -> None:
    body = service.request()
    dataset, model = body["dataset"]["uri"].removeprefix("file://"), service.model_uri
    flags = ["--dataset", dataset, "--model", model, "--budget", "20%", "--name", "by hand", "--metadata", "team=a"]
    done = run("submit", *flags, "--set", "gradients.sketch_dim=64", "--set", "gradients.rank=4", "--json")
    assert done.exit_code == 0, done.output
    job = json.loads(done.stdout)
    assert (job["state"], job["name"], job["metadata"]) == ("queued", "by hand", {"team": "a"})

    service.work()
    done = run("watch", job["id"], "--every", "0.1")
    assert done.exit_code == 0, done.output
    assert "12 of 60 rows" in done.stdout

    picks = tmp_path / "picks.csv"
    assert run("download", job["id"], "-o", str(picks)).exit_code == 0
    with picks.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
    rows = tmp_path / "rows.jsonl"
    assert run("download", job["id"], "-o", str(rows), "--rows").exit_code == 0
    assert len(rows.read_text().splitlines()) == 12
    assert "12 of 60 rows" in run("list", "--state", "succeeded").stdout


@pytest.mark.usefixtures("url")
def test_cancelling_a_job(service: Service) -> None:
    job_id = service.submit(service.request())
    assert json.loads(run("cancel", job_id, "--json").stdout)["state"] == "cancelled"
    assert run("watch", job_id).exit_code == 4
    assert run("cancel", job_id).exit_code == 0, "whoever asks twice gets what they want"


@pytest.mark.usefixtures("url")
def test_exports_and_comparisons(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = service.run(service.request(budget={"count": 6}))["id"]
    second = service.run(service.request(budget={"count": 6}, method="random"))["id"]

    for trainer, files in (
        ("trl", ["train.jsonl"]),
        ("llama-factory", ["train.json", "dataset_info.json"]),
        ("axolotl", ["train.jsonl", "train.axolotl.yml"]),
        ("indices", ["train.json", "train.npy"]),
    ):
        out = tmp_path / trainer
        done = run("export", first, "--format", trainer, "--out", str(out), "--json")
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert told["files"] == [str(out / name) for name in [*files, "train.spice.json"]]
        assert told["rows"] == 6
        assert {path.name for path in out.iterdir()} == {*files, "train.spice.json"}
        written = (out / files[0]).read_bytes()
        done = run("export", second[:8], "--format", trainer, "--out", str(out))
        assert done.exit_code == 2, "another job's export is there"
        assert f"{out / files[0]} is there already" in done.stderr
        assert (out / files[0]).read_bytes() == written
        assert run("export", first, "--format", trainer, "--out", str(out)).exit_code == 0, "the same one, again"
    assert run("export", second, "--format", "trl", "--out", str(tmp_path / "trl"), "--overwrite").exit_code == 0

    found = service.http.get(f"/jobs/{first}/comparison", params={"other": second}).json()
    ours, theirs = (set(service.http.get(f"/jobs/{one}/subset").json()["indices"]) for one in (first, second))
    shared = len(ours & theirs)
    assert [one["shared"] for one in found["jobs"]] == [[6, shared], [shared, 6]]
    assert [one["alone_rows"] for one in found["jobs"]] == [sorted(ours - theirs), sorted(theirs - ours)]
    assert (found["in_all"], found["in_any"], found["same_rows"], found["same_scale"]) == (
        shared,
        12 - shared,
        True,
        True,
    )
    assert service.http.get(f"/jobs/{first}/comparison", params={"other": first}).status_code == 422
    assert service.http.get(f"/jobs/{first}/comparison", params={"other": str(uuid.uuid4())}).status_code == 404

    done = run("compare", first, second, "--json")
    assert done.exit_code == 0, done.output
    compared = json.loads(done.stdout)
    assert [job["id"] for job in compared["jobs"]] == [first, second]
    assert compared["overlap"][0][0] == compared["overlap"][1][1] == 1
    assert 0 <= compared["overlap"][0][1] == compared["overlap"][1][0] < 1
    assert compared["same_rows"]
    assert compared["same_scale"]
    assert len(run("compare", first, second).stdout.splitlines()) == 3, "one table, where there is room"
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("compare", first, second).stdout.splitlines()
    assert len(lines) == 7, "a table of the jobs, and one of the rows that they share"
    assert first[:8] in lines[1]
    assert "random" in lines[2]


@pytest.mark.usefixtures("url")
def test_exports_and_comparisons_that_are_refused(service: Service, tmp_path: Path) -> None:
    queued = service.submit(service.request())
    for arguments, says in (
        (["export", queued, "--format", "trl", "--out", str(tmp_path / "out")], "has no result"),
        (["export", queued, "--format", "trl", "--name", "../up"], "must be letters"),
        (["export", queued, "--format", "trl", "--column", "prompt"], "give role=column"),
        (["export", queued, "--format", "parchment"], "is not one of"),
        (["compare", queued], "give two jobs or more"),
        (["compare", queued, queued], "compare jobs that succeeded"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2, arguments
        assert says in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("url")
def test_what_the_service_refuses(service: Service) -> None:
    done = run("submit", "--dataset", "ftp://example.com/a.jsonl", "--model", service.model_uri, "--budget", "0")
    assert done.exit_code == 2
    assert "selection.budget.count" in done.stderr
    flags = ["--dataset", "s3://b/a.csv", "--model", service.model_uri, "--budget", "1"]
    done = run("submit", *flags, "--set", "selection.conflict_penality=0.2")
    assert done.exit_code == 2
    assert "there is no such field: did you mean selection.conflict_penalty?" in done.stderr
    done = run("watch", str(uuid.uuid4()))
    assert done.exit_code == 2
    assert "There is no such job" in done.stderr


@pytest.mark.usefixtures("url")
def test_a_file_that_the_service_does_not_see_is_uploaded(
    service: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    service.write_dataset(real_rows(), "mine.jsonl")
    here = tmp_path_factory.mktemp("elsewhere") / "mine.jsonl"
    here.write_bytes((service.directory / "mine.jsonl").read_bytes())
    flags = ["--dataset", str(here), "--model", service.model_uri, "--budget", "3"]
    done = run("submit", *flags)
    assert done.exit_code == 2
    assert "is outside the directories that may be read" in done.stderr
    assert f"{here} is here: add --upload to send it to the service" in done.stderr
    done = run("submit", "--upload", *flags, "--json")
    assert done.exit_code == 0, done.output
    uri = json.loads(done.stdout)["dataset"]["uri"]
    assert run("upload", str(here)).stdout == f"{uri}\n", "the same file again has the same URI"
    done = run("upload", str(here), "--name", "mine.docx")
    assert done.exit_code == 2
    assert "does not tell the format" in done.stderr
    assert run("upload", str(here.parent)).exit_code == 2


def spice_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPICE_")}
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env={**kept, **environment})


def test_migrate_makes_the_schema_and_may_be_run_again(empty_database_url: str) -> None:
    for _ in range(2):
        done = spice_process("migrate", SPICE_DATABASE_URL=empty_database_url)
        assert done.returncode == 0, done.stderr
    with psycopg.connect(empty_database_url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("UPDATE alembic_version SET version_num = '0042'", "it is at revision 0042, which is none of 0001"),
        ("ALTER TABLE jobs RENAME priority TO urgency", "it lacks jobs.priority and it has jobs.urgency"),
        ("DROP TABLE repairs", "it lacks repairs.cancel_requested_at, "),
    ],
)
def test_a_database_of_another_version_is_told_with_the_remedy(
    empty_database_url: str, changed: str, told: str
) -> None:
    upgrade(empty_database_url)
    with psycopg.connect(empty_database_url.replace("+psycopg", "")) as connection:
        connection.execute(changed)
    done = spice_process("migrate", SPICE_DATABASE_URL=empty_database_url)
    assert done.returncode == 3
    said = " ".join(done.stderr.split())
    assert f"the database has the schema of another version ({told}" in said
    assert "start the version that made it, or take an empty database" in said
    assert "Traceback" not in said


def test_migrate_waits_for_the_database_but_not_for_ever() -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    done = spice_process("migrate", "--timeout", "1", SPICE_DATABASE_URL=url)
    assert done.returncode == 3
    assert "The database cannot be reached" in done.stderr
    assert "SPICE_DATABASE_URL" in done.stderr


@pytest.mark.parametrize("command", ["api", "migrate", "serve"])
def test_a_wrong_setting_is_named(command: str) -> None:
    done = spice_process(command, SPICE_PORT="eighty")
    assert done.returncode == 2
    assert "SPICE_PORT" in done.stderr
    assert "eighty" in done.stderr
    assert "Traceback" not in done.stderr
