"""The shell as a person uses it: short ids, narrow terminals, questions before what can't be undone, plain refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from tests.integration.client.test_cli_client import JOB_ID, RESULT, StandIn, job, request_file, run, stand_in, url

if TYPE_CHECKING:
    from tests.integration.client.test_cli_client import Result

__all__ = ["request_file", "stand_in", "url"]  # fixtures
OTHER_ID = "7d5fa1b4-9999-4a0e-8a35-5a3a0a9be4a1"
LONG = "a name of a job that somebody has written out in full, with the day and the reason"
PROGRESS = {"done": 41_984, "total": 100_000, "unit": "samples", "rate": 212.4, "eta_s": 273.2}


@pytest.fixture
def listed(stand_in: StandIn) -> StandIn:
    stand_in.pages[None] = {"items": [job("succeeded", result=RESULT)], "next_cursor": None}
    stand_in.looks = [job("succeeded", result=RESULT)]
    return stand_in


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("width", [70, 80, 120])
def test_a_table_fits_the_terminal_and_cuts_no_id(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    entries = [
        job("running", "gradients", progress=PROGRESS, name=LONG),
        job("failed", name=None, id=OTHER_ID, error={"type": "x", "title": "The dataset is not what it says it is"}),
        job("cancelled", name="short"),
    ]
    stand_in.pages[None] = {"items": entries, "next_cursor": None}
    lines = run("list").stdout.splitlines()
    assert len(lines) == 4
    assert all(len(line) <= width for line in lines)
    ids = [line.split()[0] for line in lines[1:]]
    assert ids == [JOB_ID[:10], OTHER_ID[:10], JOB_ID[:10]], "as short as they can be and still be told apart"
    states = zip(("running", "failed", "cancelled"), lines[1:], strict=True)
    assert all(f" {state} " in line for state, line in states)


@pytest.mark.usefixtures("url")
def test_a_width_of_0_is_none(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    stand_in.pages[None] = {"items": [job("cancelled", name=LONG)], "next_cursor": None}
    assert JOB_ID in run("list").stdout
    assert LONG in run("list").stdout


def test_a_proxy_that_is_in_between_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    told = run("list", "--url", "http://127.0.0.1:2").stderr
    assert "It was asked through the proxy of HTTP_PROXY: NO_PROXY=127.0.0.1 asks it directly." in told
    assert "secret" not in told
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert "PROXY" not in run("list", "--url", "http://127.0.0.1:2").stderr


@pytest.mark.usefixtures("listed", "url")
@pytest.mark.parametrize("given", [JOB_ID, JOB_ID.upper(), JOB_ID[:8], JOB_ID[:3], JOB_ID[:14], "@last"])
def test_a_job_is_named_by_its_id_the_beginning_of_it_or_as_the_last(stand_in: StandIn, given: str) -> None:
    done = run("show", given)
    assert done.exit_code == 0, done.output
    assert JOB_ID in done.stdout
    assert "no subset of this size has more than 1.250 times" in done.stdout
    assert f"spice export {JOB_ID}" in done.stdout
    if given in (JOB_ID[:8], JOB_ID[:14]):
        assert stand_in.asked["id_prefix"] == given


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("given", "items", "says"),
    [
        ("7d5f", [job("queued"), job("failed", id=OTHER_ID, name="weekly")], f"{OTHER_ID} (weekly)"),
        ("abc", [job("queued")], "no job's id begins with abc"),
        ("nightly", [], "'nightly' is no id"),
        ("@last", [], "there are no jobs yet"),
    ],
)
def test_a_job_that_is_not_told_apart_is_refused(
    stand_in: StandIn, given: str, items: list[dict[str, Any]], says: str
) -> None:
    stand_in.pages[None] = {"items": items, "next_cursor": None}
    done = run("watch", given, "--patience", "0")
    assert done.exit_code == 2
    assert says in done.stderr


@pytest.mark.usefixtures("listed")
def test_the_page_of_a_job_is_opened(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    done = run("open", "@last")
    assert done.stdout.strip() == f"{url}/#/jobs/{JOB_ID}"
    assert opened == [f"{url}/#/jobs/{JOB_ID}"]


def test_version_and_short_help() -> None:
    assert run("--version").stdout.strip() == version("spice-select")
    assert "Usage" in run("-h").stdout
    assert "--watch" in run("submit", "-h").stdout


@pytest.mark.usefixtures("listed")
def test_the_shell_completes_ids(url: str) -> None:
    asked = {
        "_SPICE_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": f"spice watch {JOB_ID[:4]}",
        "SPICE_API_URL": url,
    }
    program = str(Path(sys.executable).with_name("spice"))
    done = subprocess.run([program], check=False, capture_output=True, text=True, env={**os.environ, **asked})
    assert JOB_ID in done.stdout, done.stderr
    asked["SPICE_API_URL"] = "http://127.0.0.1:1"
    done = subprocess.run([program], check=False, capture_output=True, text=True, env={**os.environ, **asked})
    assert (JOB_ID in done.stdout, done.stderr) == (False, ""), "a service that is away disturbs nobody's typing"


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("dataset", "model", "says"),
    [
        ("missing.jsonl", "here", "dataset: {here}/missing.jsonl is not there"),
        ("here/*.csv", "here", "dataset: {here}/here/*.csv is not there"),
        ("rows.jsonl", "HuggingFaceTB/SmolLM2-135M", "hf://HuggingFaceTB/SmolLM2-135M@COMMIT"),
        ("tatsu-lab/alpaca", "here", "hf://datasets/tatsu-lab/alpaca@COMMIT"),
    ],
)
def test_what_is_not_here_is_said_before_anything_is_sent(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, model: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "here").mkdir()
    done = submit(dataset, model)
    assert done.exit_code == 2
    assert says.format(here=tmp_path) in done.stderr
    assert not stand_in.received


@pytest.mark.usefixtures("url")
def test_a_repository_with_its_commit_is_one_of_the_hub(stand_in: StandIn, tmp_path: Path) -> None:
    rows = tmp_path / "rows 1.jsonl"
    rows.touch()
    commit = "0123456789" * 4
    assert submit(str(tmp_path / "rows*"), f"org/name@{commit}").exit_code == 0
    assert stand_in.received["dataset"]["uri"] == f"{tmp_path.as_uri()}/rows*"
    assert stand_in.received["model"]["uri"] == f"hf://org/name@{commit}"
    assert submit(f"org/name@{commit}", str(tmp_path)).exit_code == 0
    assert stand_in.received["dataset"]["uri"] == f"hf://datasets/org/name@{commit}"


@pytest.mark.usefixtures("listed", "url")
def test_deleting_asks_first(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("delete", JOB_ID)
    assert done.exit_code == 2
    assert "without a terminal give --yes" in done.stderr
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr("spice_client.cli.jobs.agreed", no)
    assert run("delete", JOB_ID).exit_code == 2
    assert "100 of 1,000 rows" in asked[0]
    assert stand_in.deleted == []
    assert run("delete", "@last", "--yes").exit_code == 0
    assert stand_in.deleted == [JOB_ID]


@pytest.mark.parametrize(
    ("wrong", "likely"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("ftp://spice.example/x", "http://spice.example"),
        ("nonsense", "http://nonsense"),
    ],
)
def test_a_url_without_its_scheme_is_told_with_it(wrong: str, likely: str) -> None:
    done = run("list", "--url", wrong)
    assert done.exit_code == 2
    assert f"{wrong}: give the whole URL, as in {likely}" in done.stderr


def submit(dataset: str, model: str) -> Result:
    return run("submit", "--dataset", dataset, "--model", model, "--budget", "10%")


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--dataset", ""), "dataset: its name is empty: give a URI or a path"),
        (("--model", ""), "model: its name is empty: give a URI or a path"),
        (("--upload",), "--upload sends the file that --dataset names: give --dataset FILE"),
        (("--idempotency-key", ""), "'': give 1 to 255 printable ASCII characters"),
        (("--idempotency-key", "clé"), "'clé': give 1 to 255 printable ASCII characters"),
        (("--idempotency-key", "a\nb"), "'a\\nb': give 1 to 255 printable ASCII characters"),
    ],
)
def test_what_a_script_left_empty_or_unsaid_makes_no_job(
    stand_in: StandIn, request_file: str, given: tuple[str, ...], says: str
) -> None:
    done = run("submit", request_file, *given)
    assert done.exit_code == 2
    assert says in done.stderr
    assert not stand_in.received


@pytest.mark.usefixtures("url")
def test_rows_in_the_place_of_the_request_are_told_from_it(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"a": 1}\n{"a": 2}\n')
    done = run("submit", str(rows))
    assert done.exit_code == 2
    assert f"If it is the dataset: --dataset {rows}" in done.stderr


@pytest.mark.usefixtures("url")
def test_a_file_with_a_colon_in_its_name_is_a_file(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run:3.jsonl").touch()
    assert submit("run:3.jsonl", str(tmp_path)).exit_code == 0
    assert stand_in.received["dataset"]["uri"] == f"{tmp_path.as_uri()}/run%3A3.jsonl"


@pytest.mark.usefixtures("listed", "url")
def test_a_job_named_twice_is_deleted_once(stand_in: StandIn) -> None:
    assert run("delete", JOB_ID, "@last", "--yes").exit_code == 0
    assert stand_in.deleted == [JOB_ID]


@pytest.mark.usefixtures("url")
def test_a_list_that_is_not_whole_says_so(stand_in: StandIn) -> None:
    entries = [job("cancelled", id=OTHER_ID), job("cancelled")]
    stand_in.pages[None] = {"items": entries, "next_cursor": None}
    done = run("list", "--limit", "1")
    assert (OTHER_ID in done.stdout, JOB_ID in done.stdout) == (True, False)
    assert "the newest 1 alone: there are more, see --limit" in done.stderr
    assert run("list", "--limit", "2").stderr == ""


def test_output_that_nobody_takes_ends_quietly_and_a_full_disk_is_told(listed: StandIn, url: str) -> None:
    program = str(Path(sys.executable).with_name("spice"))
    command, environment = [program, "show", "@last", "--json"], {**os.environ, "SPICE_API_URL": url}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, check=False, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
    command[-1:] = []
    listed.looks = [job("cancelled", name="日本")]
    ascii_alone = {**environment, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=ascii_alone)
    assert "\\u65e5\\u672c" in done.stdout
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == "The output cannot be written\n  No space left on device\n"
