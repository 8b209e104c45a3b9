from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from workers.data.leftovers import remove_leftovers

if TYPE_CHECKING:
    from app.core.settings import Settings


def test_only_what_is_unfinished_and_old_goes(settings: Settings) -> None:
    assert remove_leftovers(settings) == 0  # there is no cache yet
    datasets, corpora = settings.cache_path / "datasets", settings.cache_path / "corpora"
    old = time.time() - 2 * settings.fetch_timeout_s
    for directory in (datasets, corpora / ".old", corpora / ".growing", corpora / "finished"):
        directory.mkdir(parents=True)
    files = [datasets / ".old.part", datasets / "a.jsonl", corpora / ".old" / "ids.bin", corpora / "finished" / "x"]
    for path in files:
        path.write_bytes(b"x")
        os.utime(path, (old, old))
    (datasets / ".young.part").write_bytes(b"x")
    (corpora / ".growing" / "ids.bin").write_bytes(b"x")
    for path in (corpora / ".old", corpora / ".growing", corpora / "finished"):
        os.utime(path, (old, old))
    assert remove_leftovers(settings) == 2
    assert sorted(path.name for path in datasets.iterdir()) == [".young.part", "a.jsonl"]
    assert sorted(path.name for path in corpora.iterdir()) == [".growing", "finished"]
