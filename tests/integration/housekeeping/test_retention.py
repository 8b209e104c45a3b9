"""Artifacts are deleted by size and age, the least recently used first, and never from under a job."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from app.core.contracts.job_plan import JobPlan
from app.core.db.tables import Job, State
from app.core.lifecycle import leases, sketch_use
from app.core.storage import open_artifacts
from app.core.storage import s3 as s3_module
from app.core.storage.s3 import S3Artifacts
from app.housekeeping.retention import GRACE_S, UNFINISHED_S, sweep
from tests.integration.conftest import real_rows
from tests.integration.s3_server import s3_server

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from app.core.storage import ArtifactStore
    from app.core.storage.local import LocalArtifacts
    from tests.integration.conftest import Service

DAY = 86400.0
KEYS = [letter * 64 for letter in "abc"]


@pytest.fixture
def store(settings: Settings) -> LocalArtifacts:
    return open_artifacts(settings)  # type: ignore[return-value]


def age(store: LocalArtifacts, name: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(store.path(name), (then, then))


def keep(store: LocalArtifacts, key: str, *, size: int = 1000, used_ago: float = DAY) -> None:
    """Sketches of a key: shards of ten days ago, used some time ago."""
    for name, content, ago in (("shard-00000", b"x" * size, 10 * DAY), ("used", b"", used_ago)):
        store.write(f"sketches/{key}/{name}", content)
        age(store, f"sketches/{key}/{name}", ago)


def kept(store: ArtifactStore) -> list[str]:
    return sorted({stored.name.split("/")[1] for stored in store.list("sketches/")})


def job(sessions: Sessions, state: State, plan: dict[str, Any] | None = None) -> uuid.UUID:
    with sessions() as session:
        row = Job(state=state, request={}, plan=plan)
        session.add(row)
        session.commit()
        return row.id


def limited(settings: Settings, **limits: float) -> Settings:
    return settings.model_copy(update=limits)


def test_the_least_recently_used_goes_first(settings: Settings, sessions: Sessions, store: LocalArtifacts) -> None:
    for key, used_ago in zip(KEYS, (2 * DAY, 3 * DAY, DAY), strict=True):
        keep(store, key, used_ago=used_ago)
    assert sweep(sessions, store, settings) == []  # no limit
    assert sweep(sessions, store, limited(settings, artifacts_max_bytes=2000)) == [f"sketches/{KEYS[1]}/"]
    assert kept(store) == [KEYS[0], KEYS[2]]
    sweep(sessions, store, limited(settings, artifacts_max_bytes=1))
    assert kept(store) == []
    assert not store.path("sketches/" + KEYS[0]).exists()


def test_what_was_not_used_for_long_goes(settings: Settings, sessions: Sessions, store: LocalArtifacts) -> None:
    for key, used_ago in zip(KEYS, (2 * DAY, 3 * DAY, DAY), strict=True):
        keep(store, key, used_ago=used_ago)
    sweep(sessions, store, limited(settings, artifacts_max_age_s=1.5 * DAY))
    assert kept(store) == [KEYS[2]]


def test_what_no_pool_uses_any_more_goes_shard_by_shard(
    settings: Settings, sessions: Sessions, store: LocalArtifacts
) -> None:
    """A key holds the rows of many datasets: what counts is when a job last used a shard, not the key."""
    prefix, shards = f"sketches/{KEYS[0]}/", [digit * 32 for digit in "1234"]
    for shard in shards:
        for suffix in ("safetensors", "index"):
            store.write(f"{prefix}shard-{shard}.{suffix}", b"x" * 500)
            age(store, f"{prefix}shard-{shard}.{suffix}", 10 * DAY)
    lists = {
        "a": (shards[:2], 5 * DAY),
        "b": (shards[1:3], 2 * DAY),
        "c": (shards[:2], 3 * DAY),
        "d": ([KEYS[1][:32]], DAY),
    }
    for letter, (used, ago) in lists.items():
        store.write(f"{prefix}used-{letter * 32}", bytes.fromhex("".join(used)))
        age(store, f"{prefix}used-{letter * 32}", ago)
    assert sweep(sessions, store, limited(settings, artifacts_max_age_s=20 * DAY)) == []
    left = {stored.name.removeprefix(prefix) for stored in store.list(prefix)}
    assert {name for name in left if name.startswith("used-")} == {f"used-{letter * 32}" for letter in "bc"}
    removed = sweep(sessions, store, limited(settings, artifacts_max_age_s=4 * DAY))
    assert sorted(removed) == [f"{prefix}shard-{shards[3]}.{suffix}" for suffix in ("index", "safetensors")]
    removed = sweep(sessions, store, limited(settings, artifacts_max_bytes=2100))
    assert sorted(removed) == [f"{prefix}shard-{shards[0]}.{suffix}" for suffix in ("index", "safetensors")]
    assert sweep(sessions, store, limited(settings, artifacts_max_age_s=DAY / 2)) == [prefix]


def test_what_else_was_computed_for_rows_goes_with_the_last_use_of_these_rows(
    settings: Settings, sessions: Sessions, store: LocalArtifacts
) -> None:
    prefix, old, used, pool = f"sketches/{KEYS[0]}/", "1" * 32, "2" * 32, "3" * 32
    kinds = ("shard", "embedding_1", f"influence_1-{pool}")
    files = [f"{kind}-{rows}.{end}" for kind in kinds for rows in (old, used) for end in ("safetensors", "index")]
    for name in (*files, f"embedding_1s-000000065-{pool}.index", f"less-{pool}.safetensors"):
        store.write(prefix + name, b"x")
        age(store, prefix + name, 10 * DAY)
    store.write(f"{prefix}used-{'a' * 32}", bytes.fromhex(used))
    removed = sweep(sessions, store, limited(settings, artifacts_max_age_s=5 * DAY))
    gone = [name for name in files if old in name]
    assert sorted(removed) == sorted(prefix + name for name in (*gone, f"less-{pool}.safetensors"))


def test_what_is_young_stays(settings: Settings, sessions: Sessions, store: LocalArtifacts) -> None:
    keep(store, KEYS[0], used_ago=GRACE_S / 2)
    assert sweep(sessions, store, limited(settings, artifacts_max_bytes=1, artifacts_max_age_s=1)) == []


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
@pytest.mark.parametrize("entry", ["sketches", "uses"])
def test_what_a_live_job_uses_stays(
    settings: Settings, sessions: Sessions, store: LocalArtifacts, state: State, entry: str
) -> None:
    for key in KEYS:
        keep(store, key)
    job_id = job(sessions, state, {entry: KEYS[1]})
    job(sessions, State.SUCCEEDED, {entry: KEYS[2]})
    tight = limited(settings, artifacts_max_bytes=1, artifacts_max_age_s=1)
    sweep(sessions, store, tight)
    assert kept(store) == [KEYS[1]]
    with sessions() as session:
        session.get_one(Job, job_id).state = State.FAILED
        session.commit()
    sweep(sessions, store, tight)
    assert kept(store) == []


def test_a_job_that_begins_during_a_deletion_waits_for_its_end(sessions: Sessions) -> None:
    job_id = job(sessions, State.QUEUED)
    done = threading.Event()

    def begin() -> None:
        with sessions() as session:
            lease = leases.claim(session, Job, job_id, 1, 30)
            assert lease is not None
            assert sketch_use.use(session, lease, KEYS[0], JobPlan(seconds={}), 30).held
        done.set()

    with ThreadPoolExecutor(1) as pool:
        with sketch_use.retiring(sessions, KEYS[0]) as free:
            assert free
            begun = pool.submit(begin)
            assert not done.wait(0.5)
        begun.result(timeout=60)
    with sessions() as session:
        assert session.get_one(Job, job_id).plan == {"seconds": {}, "uses": KEYS[0]}
    with sketch_use.retiring(sessions, KEYS[0]) as free:
        assert not free
    with sketch_use.retiring(sessions, KEYS[1]) as free, sketch_use.retiring(sessions, KEYS[1]) as second:
        assert (free, second) == (True, False)  # one deletion of a key at a time


def test_any_number_of_sweeps_at_once_do_no_harm(settings: Settings, sessions: Sessions, store: LocalArtifacts) -> None:
    keys = [f"{i:02x}" * 32 for i in range(1, 40)]
    for key in keys:
        keep(store, key)
    job(sessions, State.RUNNING, {"sketches": keys[7]})
    tight = limited(settings, artifacts_max_age_s=1)
    with ThreadPoolExecutor(4) as pool:
        removed = list(pool.map(lambda _: sweep(sessions, store, tight), range(4)))
    assert kept(store) == [keys[7]]
    assert {name for one in removed for name in one} == {f"sketches/{key}/" for key in keys if key != keys[7]}


def test_rows_go_by_age_and_those_of_no_result_at_once(
    settings: Settings, sessions: Sessions, store: LocalArtifacts
) -> None:
    states = [State.SUCCEEDED, State.FAILED, State.CANCELLED, State.RUNNING, State.QUEUED]
    ids = {state: job(sessions, state) for state in states}
    unknown = uuid.uuid4()
    for job_id in (*ids.values(), unknown):
        store.write(f"jobs/{job_id}/rows.csv", b"a,b\n")
    store.write("jobs/README", b"not ours")
    assert sweep(sessions, store, settings) == []  # all young
    for job_id in (*ids.values(), unknown):
        age(store, f"jobs/{job_id}/rows.csv", 2 * DAY)
    assert len(sweep(sessions, store, settings)) == 2
    left = {stored.name.split("/")[1] for stored in store.list("jobs/")}
    assert left == {str(ids[State.SUCCEEDED]), str(ids[State.RUNNING]), str(ids[State.QUEUED]), str(unknown), "README"}
    sweep(sessions, store, limited(settings, rows_max_age_s=DAY))
    left = {stored.name.split("/")[1] for stored in store.list("jobs/")}
    assert left == {str(ids[State.RUNNING]), str(ids[State.QUEUED]), "README"}


def test_what_cannot_be_deleted_holds_up_nothing_else(
    settings: Settings, sessions: Sessions, store: LocalArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = [job(sessions, State.FAILED) for _ in range(2)]
    for job_id in failed:
        store.write(f"jobs/{job_id}/rows.csv", b"a,b\n")
        age(store, f"jobs/{job_id}/rows.csv", 2 * DAY)
    for key, used_ago in zip(KEYS, (3 * DAY, 2 * DAY, DAY), strict=True):
        keep(store, key, used_ago=used_ago)
    immutable = [store.path(f"sketches/{KEYS[0]}/"), store.path(f"jobs/{failed[0]}/")]
    remove_all = shutil.rmtree

    def refusing(path: Path) -> None:
        """As of files that are marked immutable, which root, who runs the tests, could delete in all other ways."""
        if path in immutable:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        remove_all(path)

    monkeypatch.setattr("app.core.storage.local.shutil.rmtree", refusing)
    few = limited(settings, artifacts_max_bytes=1500)
    assert set(sweep(sessions, store, few)) == {f"sketches/{KEYS[1]}/", f"sketches/{KEYS[2]}/", f"jobs/{failed[1]}/"}
    monkeypatch.undo()
    assert sweep(sessions, store, few) == [f"jobs/{failed[0]}/"]


def test_writes_that_were_killed_are_cleared(settings: Settings, sessions: Sessions, store: LocalArtifacts) -> None:
    keep(store, KEYS[0], used_ago=0)
    for name, ago in ((".shard-00001.old", 2 * UNFINISHED_S), (".shard-00001.new", 60)):
        store.write(f"sketches/{KEYS[0]}/{name}", b"part")
        age(store, f"sketches/{KEYS[0]}/{name}", ago)
    assert sweep(sessions, store, settings) == [f"sketches/{KEYS[0]}/.shard-00001.old"]


def test_a_bucket_is_swept_likewise(settings: Settings, sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "LISTED_AT_ONCE", 3)
    monkeypatch.setattr(s3_module, "DELETED_AT_ONCE", 2)
    with s3_server() as server:
        server.client.create_bucket(Bucket="artifacts")
        store = S3Artifacts("s3://artifacts/spice", server.url)
        for key in KEYS[:2]:
            for number in range(5):
                store.write(f"sketches/{key}/shard-{number:05d}", b"x")
        job(sessions, State.RUNNING, {"uses": KEYS[1]})
        tight = limited(settings, artifacts_max_bytes=1)
        assert sweep(sessions, store, tight) == []
        assert sweep(sessions, store, tight, now=time.time() + DAY) == [f"sketches/{KEYS[0]}/"]
        assert len(list(store.list("sketches/"))) == 5


def test_jobs_do_not_notice_a_sweeper_that_never_rests(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is over the limit all the time; a job whose sketches vanished while it used them would fail here."""
    from workers.stages import job_sketches  # noqa: PLC0415 - after the service's settings are in place

    monkeypatch.setattr(job_sketches, "MOST_ROUNDS", 1)
    resources = service.http.app.state.resources  # type: ignore[attr-defined]
    tight = limited(service.settings, artifacts_max_bytes=1, artifacts_max_age_s=1)
    ended = threading.Event()

    def sweep_on() -> int:
        removed = 0
        while not ended.is_set():
            removed += len(sweep(resources.sessions, resources.artifacts, tight, now=time.time() + 2 * GRACE_S))
        return removed

    with ThreadPoolExecutor(1) as pool:
        sweeper = pool.submit(sweep_on)
        try:
            states = [service.run(service.request(conflict_penalty=penalty)) for penalty in (0.1, 0.2, 0.3)]
        finally:
            ended.set()
        assert sweeper.result() >= 2
    assert [found["state"] for found in states] == ["succeeded"] * 3, states
    assert list(service.settings.artifacts_path.glob("jobs/*/rows.jsonl"))


class TestTheApi:
    @pytest.fixture
    def service_settings(self, service_settings: Settings) -> Settings:
        return limited(service_settings, retention_s=0.2, rows_max_age_s=1.0)

    def test_it_sweeps_by_itself(self, service: Service) -> None:
        found = service.run(service.request())
        url = f"/jobs/{found['id']}/subset"
        deadline = time.monotonic() + 30
        while service.http.get(url, params={"rows": "true"}).status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        answer = service.http.get(url, params={"rows": "true"})
        assert (answer.status_code, answer.json()["type"]) == (404, "rows-gone")
        assert len(service.http.get(url).json()["indices"]) == found["result"]["selected"]


class TestTheWorker:
    @pytest.fixture
    def service_settings(self, service_settings: Settings) -> Settings:
        return limited(service_settings, cache_max_bytes=1)

    def test_it_keeps_its_machines_cache_small_between_tasks(self, service: Service) -> None:
        def run(name: str) -> None:
            found = service.run(service.request(service.write_dataset(real_rows(30 + len(name)), name)))
            assert found["state"] == "succeeded", found["error"]

        def datasets() -> set[Path]:
            return set((service.settings.cache_path / "datasets").glob("*"))

        run("first.jsonl")
        first = datasets()
        run("second.jsonl")
        assert len(datasets()) == 2  # both are young
        for path in service.settings.cache_path.rglob("*"):
            os.utime(path, (1, 1))
        service.work()
        assert len(datasets()) == 1
        assert not datasets() & first  # the worker still holds what it worked with last
        assert len(list((service.settings.cache_path / "corpora").glob("*"))) == 1
        run("first.jsonl")
