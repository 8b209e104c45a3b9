"""The cache of a machine stays within its limits, and nothing goes that a worker holds or a job needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from workers.data.cache_limits import GRACE_S, shrink_cache
from workers.data.holds import Holds, deleting

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.settings import Settings

DAY = 86400.0
DIGESTS = [letter * 64 for letter in "abc"]


def used_ago(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    for one in (*path.glob("*"), path):
        os.utime(one, (then, then))


@pytest.fixture
def cached(settings: Settings) -> list[Path]:
    """Two datasets and the samples of another, of 1000 bytes, last used three, two and one day ago."""
    datasets, corpora = settings.cache_path / "datasets", settings.cache_path / "corpora"
    paths = [datasets / f"{DIGESTS[0]}.jsonl", datasets / f"{DIGESTS[1]}.csv.gz", corpora / DIGESTS[2]]
    paths[2].mkdir(parents=True)
    datasets.mkdir()
    about = json.dumps({"digest": "sha256:samples"})
    (paths[2] / "about.json").write_text(about)
    for path in (*paths[:2], paths[2] / "ids.bin"):
        path.write_bytes(b"x" * 1000)
    for path, days in zip(paths, (3, 2, 1), strict=True):
        used_ago(path, days * DAY)
    (datasets / ".growing.part").write_bytes(b"x" * 5000)
    return paths


def limited(settings: Settings, **limits: float) -> Settings:
    return settings.model_copy(update=limits)


def test_without_limits_all_stays(settings: Settings, cached: list[Path]) -> None:
    assert shrink_cache(settings, (), ()) == []
    assert all(path.exists() for path in cached)


def test_the_least_recently_used_goes_first(settings: Settings, cached: list[Path]) -> None:
    size = sum(one.stat().st_size for one in (cached[2], *cached[2].iterdir()))
    assert shrink_cache(limited(settings, cache_max_bytes=1000 + size), (), ()) == cached[:1]
    assert shrink_cache(limited(settings, cache_max_bytes=size), (), ()) == cached[1:2]
    assert shrink_cache(limited(settings, cache_max_bytes=1), (), ()) == cached[2:]
    assert (settings.cache_path / "datasets" / ".growing.part").exists()


def test_what_was_not_used_for_long_goes(settings: Settings, cached: list[Path]) -> None:
    assert shrink_cache(limited(settings, cache_max_age_s=1.5 * DAY), (), ()) == cached[:2]


def test_what_a_job_needs_or_is_young_stays(settings: Settings, cached: list[Path]) -> None:
    used_ago(cached[1], GRACE_S / 2)
    tight = limited(settings, cache_max_bytes=1, cache_max_age_s=1)
    assert shrink_cache(tight, {f"sha256:{DIGESTS[0]}"}, {"sha256:samples"}) == []


def test_what_a_worker_holds_stays_until_it_lets_go(settings: Settings, cached: list[Path]) -> None:
    tight, tomorrow = limited(settings, cache_max_bytes=1), time.time() + DAY
    holds = Holds()
    assert holds.take("dataset", cached[0])
    assert holds.take("corpus", cached[2])
    assert time.time() - cached[0].stat().st_mtime < 60
    assert shrink_cache(tight, (), (), now=tomorrow) == [cached[1]]
    assert not holds.take("dataset", cached[1])
    assert shrink_cache(tight, (), (), now=tomorrow) == [cached[0]]
    holds.drop("corpus")
    assert shrink_cache(tight, (), (), now=tomorrow) == [cached[2]]
    assert list((settings.cache_path / "locks").glob("*")) == [settings.cache_path / "locks" / cached[1].name]


def test_a_killed_worker_holds_nothing(cached: list[Path]) -> None:
    code = (
        "import sys, time; from pathlib import Path; from workers.data.holds import Holds\n"
        "holds = Holds(); print(holds.take('dataset', Path(sys.argv[1])), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(cached[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with deleting(cached[0]) as free:
            assert not free
        holder.kill()
    with deleting(cached[0]) as free:
        assert free


TURNS = 100
PATIENCE_S = 60.0


def test_who_holds_what_was_there_has_it_there(tmp_path: Path) -> None:
    """Takers and deleters in a race: what was taken is there for as long as it is held."""
    path = tmp_path / "datasets" / "a.jsonl"
    path.parent.mkdir()
    turns = {"held": 0, "deleted": 0}
    lost = 0
    ends = time.monotonic() + PATIENCE_S

    def racing() -> bool:
        return min(turns.values()) < TURNS and time.monotonic() < ends

    def hold() -> None:
        nonlocal lost
        holds = Holds()
        while racing():
            if holds.take("dataset", path):
                turns["held"] += 1
                time.sleep(0.0005)
                lost += not path.exists()
                holds.drop("dataset")
            else:
                path.touch()
            time.sleep(0.0005)  # two takers without a pause leave no moment in which nobody holds the file

    def delete() -> None:
        while racing():
            with deleting(path) as free:
                if free and path.exists():
                    path.unlink()
                    turns["deleted"] += 1
            time.sleep(0.0005)

    threads = [threading.Thread(target=target) for target in (hold, hold, delete, delete)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == 0, "deleted while it was held"
    assert min(turns.values()) >= TURNS
