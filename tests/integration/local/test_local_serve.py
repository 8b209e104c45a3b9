"""`spice serve`: the whole service as one process tree, killed and stopped in every way."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from app.core.settings import Settings
from app.local.errors import LocalServerError
from app.local.leftovers import marked, running_in
from app.local.process import free_port
from app.local.serve import ServePlan, Service, default_roots
from tests.integration.conftest import real_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

ANY = "0.0.0.0"  # noqa: S104 - nothing listens there


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The service's data, in a directory that is closed to all other users."""
    return tmp_path / "var"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A service without workers that asks for keys. What a test kills of it is started again before the test ends."""
    directory = tmp_path_factory.mktemp("serve")
    arguments = ["--workers", "0", "--allow-root", str(directory)]
    with serve(directory / "var", *arguments, environment={"SPICE_AUTH": "keys"}) as running:
        running.wait_until_ready()
        yield running


@dataclass
class Serve:
    """A running `spice serve`.

    Attributes:
        lines: What it has printed.
    """

    process: psutil.Popen
    data_dir: Path
    port: int
    lines: list[str] = field(default_factory=list)

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=60)

    def wait_until_ready(self) -> None:
        eventually(lambda: says(self, "Ctrl-C stops it") or self.process.poll() is not None)
        assert self.process.poll() is None, "\n".join(self.lines)
        with self.http as http:
            assert http.get("/readyz").status_code == 200

    def tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def child(self, *words: str) -> psutil.Process:
        """The child whose command line ends with these words."""
        found = [one for one in self.process.children() if one.cmdline()[-len(words) :] == list(words)]
        assert len(found) == 1, [one.cmdline() for one in self.process.children()]
        return found[0]

    def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = 30) -> int:
        self.process.send_signal(number)
        return int(self.process.wait(within_s))


@contextmanager
def serve(
    data_dir: Path, *arguments: str, port: int | None = None, environment: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Serve]:
    chosen = port or free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPICE_")}
    command = [*(sys.executable, "-m", "app.cli", "serve"), *("--data-dir", str(data_dir), "--port", str(chosen))]
    process = psutil.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**kept, **environment}
    )
    running = Serve(process, data_dir, chosen)
    reader = threading.Thread(target=read, args=(process.stdout, running.lines))
    reader.start()
    try:
        yield running
    finally:
        with suppress(psutil.NoSuchProcess):
            process.kill()
        process.wait()
        reader.join(10)


def read(pipe: IO[str], into: list[str]) -> None:
    into.extend(iter(pipe.readline, ""))


def eventually(happens: Callable[[], bool], within_s: float = 90) -> None:
    deadline = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.1)


def nothing_is_left(data_dir: Path) -> bool:
    families = [
        marked(data_dir.resolve()),
        running_in(data_dir.resolve() / "postgres", "postgres"),
        running_in(data_dir.resolve() / "valkey", "valkey-server"),
    ]
    return not any(one.status() != psutil.STATUS_ZOMBIE for family in families for one in family if one.is_running())


def submit(running: Serve, dataset: Path, model: Path) -> str:
    body = {
        "dataset": {"uri": dataset.as_uri()},
        "model": {"uri": model.as_uri(), "max_length": 128},
        "gradients": {"rank": 4, "sketch_dim": 64},
        "selection": {"budget": {"count": 5}},
    }
    with running.http as http:
        response = http.post("/jobs", json=body)
    assert response.status_code == 202, "".join([response.text, *running.lines])
    return str(response.json()["id"])


def look(running: Serve, job_id: str) -> dict[str, Any]:
    with running.http as http:
        return dict(http.get(f"/jobs/{job_id}").json())


def test_a_job_survives_the_death_of_the_whole_tree(data_dir: Path, tiny_model: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "train.jsonl"
    dataset.write_text("".join(json.dumps(row) + "\n" for row in real_rows()))
    roots = ["--allow-root", str(tmp_path), "--allow-root", str(tiny_model.parent)]
    quick = {"SPICE_LEASE_S": "2", "SPICE_RECONCILE_S": "0.5"}
    with serve(data_dir, *roots, environment=quick) as running:
        running.wait_until_ready()
        job_id = submit(running, dataset, tiny_model)
        eventually(lambda: look(running, job_id)["state"] != "queued")
        for process in running.tree():
            process.kill()
        running.process.wait()
    eventually(lambda: nothing_is_left(data_dir))
    with serve(data_dir, *roots, environment=quick) as running:
        running.wait_until_ready()
        eventually(lambda: look(running, job_id)["finished_at"] is not None)
        job = look(running, job_id)
        assert job["state"] == "succeeded", job["error"]
        assert job["result"]["selected"] == 5
        assert running.stop(signal.SIGINT) == 0
    assert nothing_is_left(data_dir)


def test_killing_serve_alone_takes_everything_along_and_its_port_is_free(data_dir: Path) -> None:
    """Connections that linger are no reason to refuse a start on the same port."""
    with serve(data_dir) as running:
        running.wait_until_ready()
        assert len(running.process.children()) == 4, "PostgreSQL, Valkey, API and worker"
        connections = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(5)]
        running.process.kill()
        running.process.wait()
        eventually(lambda: nothing_is_left(data_dir), within_s=15)
        with serve(data_dir, "--workers", "0", port=running.port) as again:
            again.wait_until_ready()
            assert again.stop(signal.SIGHUP) == 0, "as when its terminal is closed"
    assert nothing_is_left(data_dir)
    for connection in connections:
        connection.close()


def test_whatever_dies_is_started_again(keyed: Serve) -> None:
    api, before = keyed.child("app.cli", "api"), len(keyed.lines)
    api.kill()
    eventually(lambda: says(keyed, "api ended (killed by SIGKILL)", before))
    eventually(lambda: is_ready(keyed))
    for directory, name in (("postgres", "PostgreSQL"), ("valkey", "Valkey")):
        for process in keyed.process.children():
            if process.cwd() == str((keyed.data_dir / directory).resolve()):
                process.kill()
        eventually(partial(says, keyed, f"{name} had died and runs again", before))
        eventually(lambda: is_ready(keyed))
    log = (keyed.data_dir / "logs" / "serve.log").read_text()
    assert "api ended (killed by SIGKILL); it is started again in 1 s" in log
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z PostgreSQL had died and runs again$", log, re.MULTILINE)


def says(running: Serve, words: str, since: int = 0) -> bool:
    return any(words in line for line in running.lines[since:])


def is_ready(running: Serve) -> bool:
    with running.http as http:
        try:
            return http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


def test_what_is_in_the_way_is_refused_before_anything_starts(keyed: Serve, tmp_path: Path) -> None:
    with serve(keyed.data_dir, "--workers", "0") as second:
        assert second.process.wait(30) == 2
    refusal = f"the data directory {keyed.data_dir.resolve()} is in use by process {keyed.process.pid}"
    assert refusal in "".join(second.lines)
    with serve(tmp_path / "other", "--workers", "0", port=keyed.port) as second:
        assert second.process.wait(30) == 2
    assert f"port {keyed.port} of 127.0.0.1 is in use" in "".join(second.lines)
    assert "--port" in "".join(second.lines)
    assert not (tmp_path / "other" / "postgres").exists()
    assert is_ready(keyed)


def test_stopping_while_it_starts_leaves_nothing(data_dir: Path) -> None:
    with serve(data_dir, "--workers", "0") as running:
        eventually(lambda: says(running, "starting PostgreSQL"))
        assert running.stop() == 0
    assert nothing_is_left(data_dir)


def test_nohup_is_respected(data_dir: Path) -> None:
    service = Service(plan(data_dir), print, lambda: None)
    for before, during in ((signal.SIG_DFL, service._on_signal), (signal.SIG_IGN, signal.SIG_IGN)):
        found = signal.signal(signal.SIGHUP, before)
        try:
            with service._signals():
                assert signal.getsignal(signal.SIGHUP) == during
            assert signal.getsignal(signal.SIGHUP) == before
        finally:
            signal.signal(signal.SIGHUP, found)


def test_what_it_says_when_it_is_ready(keyed: Serve) -> None:
    output = "".join(keyed.lines)
    assert f"http://127.0.0.1:{keyed.port}/docs" in output
    assert str(keyed.data_dir.resolve()) in output
    assert str(keyed.data_dir.parent) in output
    assert not re.search(r"(postgresql|redis)\S*://\S*:\S+@", output), "no password on the terminal"
    with keyed.http as http:
        assert http.get("/docs").status_code == 200
    assert {path.name for path in (keyed.data_dir / "logs").iterdir()} == {
        "serve.log",
        "api.log",
        "postgres.log",
        "valkey.log",
    }


def test_told_to_ask_for_keys_it_makes_the_first_and_the_commands_find_its_database(keyed: Serve) -> None:
    file = keyed.data_dir / "first-key"
    assert str(file.resolve()) in "".join(keyed.lines)
    assert file.stat().st_mode & 0o777 == 0o600
    key = file.read_text().strip()
    assert key not in "".join(keyed.lines)
    command = [sys.executable, "-m", "app.cli", "keys", "create", "--name", "second"]
    made = subprocess.run(
        command, env={**os.environ, "SPICE_DATA_DIR": str(keyed.data_dir)}, capture_output=True, text=True, check=True
    )
    with keyed.http as http:
        assert http.get("/jobs").status_code == 401
        for token in (key, made.stdout.strip()):
            assert http.get("/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize(
    ("settings", "auth"),
    [({}, "off"), ({"host": ANY}, "keys"), ({"auth": "keys"}, "keys"), ({"auth": "off"}, "off")],
)
def test_keys_are_asked_for_beyond_this_machine(data_dir: Path, settings: dict[str, Any], auth: str) -> None:
    assert plan(data_dir, **settings).auth == auth


def plan(data_dir: Path, **settings: Any) -> ServePlan:
    return ServePlan(Settings(_env_file=None, data_dir=data_dir, **settings), 1, ())


def test_a_worker_that_is_not_installed_is_said(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(LocalServerError, match=r"pip install '\.\[worker\]'.*--workers 0"):
        Service(plan(data_dir), print, lambda: None).run()
    assert not data_dir.exists()


def test_the_roots_that_clients_may_name(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = (data_dir / "datasets", data_dir / "models")
    monkeypatch.chdir(tmp_path)
    assert default_roots(plan(data_dir).settings) == (*own, tmp_path)
    assert default_roots(plan(data_dir, host=ANY).settings) == own, "others may not read the directory"
    monkeypatch.chdir("/")
    assert default_roots(plan(data_dir).settings) == own


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        (ANY, "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("example.org", "http://example.org:8000"),
    ],
)
def test_the_url_that_this_machine_uses(data_dir: Path, host: str, url: str) -> None:
    assert plan(data_dir, host=host).api_url == url
