"""The embedded servers: real ones, that lose nothing and leave nothing behind, whatever is killed."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.local import EmbeddedServers, LocalServerError, account, postgres, process
from app.local.account import Account, reachable
from app.local.leftovers import running_in

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = os.geteuid() == 0

# Run in a process of its own, which the test then kills: starts the servers, writes a row and a key, and waits.
HOLDER = """
import sys, time
from pathlib import Path
import psycopg, redis
from app.local import EmbeddedServers, process
{before}
servers = EmbeddedServers(Path(sys.argv[1])).start()
with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as connection:
    connection.execute("CREATE TABLE kept (n int)")
    connection.execute("INSERT INTO kept VALUES (42)")
redis.Redis.from_url(servers.redis_url).set("kept", "42")
print(servers.postgres.pid, servers.valkey.pid, flush=True)
time.sleep(600)
"""
ORPHANING = "process.die_with_parent = lambda signal: (lambda: None)"


@pytest.fixture
def new_dir(tmp_path: Path) -> Path:
    """Where the service's data is to be made, in a directory that is closed to all other users."""
    return tmp_path / "var"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PostgreSQL's data as its first start leaves it, to be copied: a copy takes a tenth of the time of making it."""
    directory = tmp_path_factory.mktemp("made") / "var"
    with EmbeddedServers(directory, durable=False):
        pass
    return directory / "postgres"


@pytest.fixture
def data_dir(new_dir: Path, made: Path) -> Path:
    """The service's data, made by an earlier start."""
    new_dir.mkdir(mode=0o700)
    subprocess.run(["cp", "--archive", str(made), str(new_dir)], check=True)
    return new_dir


def connect(servers: EmbeddedServers) -> psycopg.Connection:
    return psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True)


def holds_what_was_written(data_dir: Path) -> bool:
    with EmbeddedServers(data_dir) as servers, connect(servers) as connection:
        with redis.Redis.from_url(servers.redis_url) as client:
            key = client.get("kept")
        return connection.execute("SELECT n FROM kept").fetchall() == [(42,)] and key == b"42"


@contextlib.contextmanager
def holder(data_dir: Path, before: str = "") -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that runs the servers, and the pids of the servers."""
    script = HOLDER.format(before=before)
    with subprocess.Popen([sys.executable, "-c", script, str(data_dir)], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        pids = [int(word) for word in running.stdout.readline().split()]
        assert len(pids) == 2, "the servers did not start"
        try:
            yield running, pids
        finally:
            running.kill()


def runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def gone(pids: list[int], within_s: float = 15) -> bool:
    deadline = time.monotonic() + within_s
    while any(runs(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_an_orderly_restart_keeps_rows_and_keys(data_dir: Path) -> None:
    with EmbeddedServers(data_dir) as servers, connect(servers) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (42)")
        with redis.Redis.from_url(servers.redis_url) as client:
            client.set("kept", "42")
    assert not running_in(data_dir / "postgres", "postgres")
    assert not running_in(data_dir / "valkey", "valkey-server")
    assert holds_what_was_written(data_dir)


def test_the_servers_survive_a_power_cut_by_default(new_dir: Path) -> None:
    with EmbeddedServers(new_dir) as servers, connect(servers) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert connection.execute(f"SHOW {setting}").fetchone() == ("on",), setting
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_killing_the_parent_takes_the_servers_along_and_loses_nothing(data_dir: Path) -> None:
    with holder(data_dir) as (running, pids):
        running.kill()
        running.wait()
        assert gone(pids), "the servers outlive a parent that was killed with SIGKILL"
    assert holds_what_was_written(data_dir)


def test_killing_everything_at_once_loses_nothing(data_dir: Path) -> None:
    with holder(data_dir) as (running, pids):
        for pid in [running.pid, *pids]:
            os.kill(pid, signal.SIGKILL)
        running.wait()
        assert gone(pids)
    assert (data_dir / "postgres" / "postmaster.pid").exists(), "this test wants a stale pid file"
    assert holds_what_was_written(data_dir)


def test_a_stale_pid_file_whose_number_is_another_process_by_now_does_not_matter(data_dir: Path) -> None:
    with holder(data_dir) as (running, pids):
        for pid in [running.pid, *pids]:
            os.kill(pid, signal.SIGKILL)
        running.wait()
        assert gone(pids)
    owner = (data_dir / "postgres").stat()
    as_owner = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if ROOT else {}
    with subprocess.Popen(["sleep", "600"], cwd="/", **as_owner) as innocent:  # type: ignore[call-overload]
        pid_file = data_dir / "postgres" / "postmaster.pid"
        _, rest = pid_file.read_text().split("\n", 1)
        pid_file.write_text(f"{innocent.pid}\n{rest}")
        assert holds_what_was_written(data_dir)
        assert innocent.poll() is None, "a process that has nothing to do with us was stopped"
        innocent.kill()


def test_servers_that_were_left_running_are_stopped_and_their_data_taken_over(data_dir: Path) -> None:
    with holder(data_dir, before=ORPHANING) as (running, pids):
        running.kill()
        running.wait()
        assert all(runs(pid) for pid in pids), "this test wants orphans"
        assert holds_what_was_written(data_dir)
        assert gone(pids)


def test_a_data_directory_in_use_is_refused_naming_it_and_the_process(data_dir: Path) -> None:
    with EmbeddedServers(data_dir, durable=False) as servers:
        with pytest.raises(LocalServerError) as refusal:
            EmbeddedServers(data_dir).start()
        assert str(data_dir) in str(refusal.value)
        assert str(os.getpid()) in str(refusal.value)
        assert "--data-dir" in str(refusal.value)
        assert connect(servers).execute("SELECT 1").fetchone() == (1,), "the refused one did no harm"


def test_a_failed_start_lets_go_of_the_directory(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("app.local.valkey.get_binary_path", lambda: Path("/bin/false"))
        with pytest.raises(LocalServerError, match=r"Valkey ended with status 1"):
            EmbeddedServers(data_dir, durable=False).start()
    assert not running_in(data_dir / "postgres", "postgres")
    with EmbeddedServers(data_dir, durable=False) as servers:
        assert servers.valkey.alive


@pytest.mark.parametrize("name", ["d" * 120 + "/" + "e" * 120, "with a space, 'quotes' \"both\" and ünïcode #"])
def test_any_path_will_do(new_dir: Path, name: str) -> None:
    with EmbeddedServers(new_dir / name, durable=False) as servers:
        assert connect(servers).execute("SELECT 1").fetchone() == (1,)
        assert redis.Redis.from_url(servers.redis_url).ping()


def test_only_the_loopback_address_listens_and_only_with_the_password(new_dir: Path) -> None:
    with EmbeddedServers(new_dir, durable=False) as servers:
        for pid in (servers.postgres.pid, servers.valkey.pid):
            listening = [c for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN]
            assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
        for password in ("", "wrong"):
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(
                    host="127.0.0.1", port=servers.postgres.port, user="spice", dbname="spice", password=password
                )
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=servers.valkey.port or 0, retry=Retry(NoBackoff(), 0)).ping()
        secret = servers.redis_url.split(":")[2].split("@")[0]
        assert not any(secret in word for word in psutil.Process(servers.valkey.pid).cmdline())
        for directory in ("postgres", "valkey"):
            assert stat.S_IMODE((new_dir / directory).stat().st_mode) == 0o700


def test_nothing_of_the_host_is_changed(new_dir: Path) -> None:
    """Directories above the data stay closed, also to the account that the servers run as under root; none is made."""
    closed = new_dir / "closed"
    closed.mkdir(parents=True, mode=0o700)
    accounts, above = pwd.getpwall(), [closed, *closed.parents]
    before = [path.stat() for path in above]
    with EmbeddedServers(closed / "data", durable=False) as servers, connect(servers) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        redis.Redis.from_url(servers.redis_url).set("kept", "42")
    assert holds_what_was_written(closed / "data")
    assert [(path.stat().st_mode, path.stat().st_uid) for path in above] == [(s.st_mode, s.st_uid) for s in before]
    assert pwd.getpwall() == accounts


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_programs_that_the_servers_account_cannot_reach_are_copied(
    new_dir: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """As in a clone in root's home, or one that was installed for root alone."""
    installed = new_dir / "home"
    for part in postgres.PARTS:
        shutil.copytree(postgres.home() / part, installed / part)
    (installed / postgres.PROGRAM).chmod(mode)
    installed.chmod(0o700 if mode == 0o755 else 0o755)
    monkeypatch.setattr(postgres, "home", lambda: installed)
    with tempfile.TemporaryDirectory(prefix="spice-test-") as temporary:
        Path(temporary).chmod(0o755)
        monkeypatch.setattr(account, "places", lambda: (Path(temporary),))
        for _ in range(2):
            with EmbeddedServers(new_dir / "var", durable=False) as servers, connect(servers) as connection:
                assert connection.execute("SELECT now() IS NOT NULL").fetchone() == (True,)
                program = Path(psutil.Process(servers.postgres.pid).exe())
        copies = [path for path in Path(temporary).iterdir() if "postgres" in path.name]
        assert len(copies) == ROOT, "one copy serves each start, and whoever is not root needs none"
        assert program.is_relative_to(copies[0] if ROOT else installed)
    assert stat.S_IMODE((installed / postgres.PROGRAM).stat().st_mode) == mode


def test_a_copy_that_others_may_write_to_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name can be foretold, and anybody may make a directory of that name."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "run").touch(mode=0o700)
    somebody = Account(os.geteuid() + 1, os.getegid() + 1)
    with tempfile.TemporaryDirectory(prefix="spice-test-") as temporary:
        Path(temporary).chmod(0o755)
        monkeypatch.setattr(account, "places", lambda: (Path(temporary),))
        copy = reachable(home / "run", home, somebody)
        assert copy.parent.parent == Path(temporary)
        assert reachable(home / "run", home, somebody) == copy
        copy.parent.chmod(0o777)
        with pytest.raises(LocalServerError, match=r"cannot reach .*run the service as a user of your own"):
            reachable(home / "run", home, somebody)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_kill_while_the_data_is_being_made_leaves_nothing_in_the_way(new_dir: Path) -> None:
    half = new_dir / "postgres.new" / "data"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with EmbeddedServers(new_dir, durable=False) as servers:
        assert connect(servers).execute("SELECT 1").fetchone() == (1,)
    assert not (new_dir / "postgres.new").exists()


def test_a_queue_file_that_cannot_be_read_is_set_aside(data_dir: Path) -> None:
    with EmbeddedServers(data_dir, durable=False) as servers:
        redis.Redis.from_url(servers.redis_url).set("lost", 1)
    appended = next((data_dir / "valkey" / "appendonlydir").glob("*.incr.aof"))
    appended.write_bytes(b"this is no append-only file\r\n" * 100)
    with EmbeddedServers(data_dir, durable=False) as servers:
        assert redis.Redis.from_url(servers.redis_url).ping()
    aside = list(data_dir.glob("valkey.broken-*"))
    assert len(aside) == 1, "what could not be read is kept for whoever wants to look"


def test_a_server_that_dies_is_revived_where_its_clients_look_for_it(data_dir: Path) -> None:
    with EmbeddedServers(data_dir, durable=False) as servers:
        with connect(servers) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        urls = servers.database_url, servers.redis_url
        assert servers.revive() == []
        for pid in (servers.postgres.pid, servers.valkey.pid):
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert gone([pid])
        assert servers.revive() == ["PostgreSQL", "Valkey"]
        assert (servers.database_url, servers.redis_url) == urls
        assert connect(servers).execute("SELECT n FROM kept").fetchone() == (42,)


def test_a_port_that_was_taken_meanwhile_is_given_up_for_another(
    data_dir: Path, servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = [servers.valkey.port, servers.postgres.port]
    free_port = process.free_port
    monkeypatch.setattr(process, "free_port", lambda: taken.pop() if taken else free_port())
    with EmbeddedServers(data_dir, durable=False) as second:
        assert not taken
        assert second.postgres.port != servers.postgres.port
        assert second.valkey.alive


AS_PLAIN_USER = """
import os, sys
from pathlib import Path
import encodings.idna, psycopg, redis, psutil, tenacity
from app.local import EmbeddedServers, postgres, valkey
from app.local.account import Account, reachable
if os.geteuid() == 0:
    user = Account(int(sys.argv[2]), int(sys.argv[3]))
    postgres_program = reachable(postgres.home() / postgres.PROGRAM, postgres.home(), user, postgres.PARTS)
    valkey_program = reachable(valkey.get_binary_path(), valkey.get_binary_path().parent, user)
    postgres.home, valkey.get_binary_path = lambda: postgres_program.parents[3], lambda: valkey_program
    os.setgroups([])
    os.setgid(int(sys.argv[3]))
    os.setuid(int(sys.argv[2]))
assert os.geteuid() != 0
for attempt in range(2):
    with EmbeddedServers(Path(sys.argv[1])) as servers:
        with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
            connection.execute("INSERT INTO kept VALUES (%s)", (attempt,))
            rows = connection.execute("SELECT count(*) FROM kept").fetchone()
        assert rows == (attempt + 1,), rows
        assert redis.Redis.from_url(servers.redis_url).incr("kept") == attempt + 1
        assert psutil.Process(servers.postgres.pid).uids().effective == os.geteuid()
print("held")
"""


def test_a_plain_user_runs_them_as_well() -> None:
    """As root: in a process that becomes a plain user once everything is imported (Python may be root's alone)."""
    user = pwd.getpwnam("nobody") if ROOT else pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory(prefix="spice-test-") as directory:
        os.chown(directory, user.pw_uid, user.pw_gid)
        command = [sys.executable, "-c", AS_PLAIN_USER, directory, str(user.pw_uid), str(user.pw_gid)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout.strip() == "held", done.stderr


def test_root_keeps_out_of_root_and_others_out_of_its_data(data_dir: Path) -> None:
    """As root the servers run as someone else; as a plain user, as that user: never as root."""
    with EmbeddedServers(data_dir, durable=False) as servers:
        for pid in (servers.postgres.pid, servers.valkey.pid):
            uid = psutil.Process(pid).uids().effective
            assert uid != 0
            assert ROOT or uid == os.geteuid()


def test_data_of_another_user_is_refused_with_a_remedy() -> None:
    others = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from app.local.account import account_for
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            account_for(Path(sys.argv[1]))
        except PermissionError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", others, "/"], check=True, capture_output=True, text=True)
    assert "belongs to user 0" in done.stdout
    assert "--data-dir" in done.stdout
