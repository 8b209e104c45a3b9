"""The next worker on a machine tells of one that was killed, and of its memory limit where that is the likely cause."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

from app.core.settings import Settings
from workers.runtime import sudden_ends

if TYPE_CHECKING:
    from pathlib import Path

GONE = 2**22 - 1
"""A process number that Linux gives out last."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    group = tmp_path / "group"
    group.mkdir()
    (group / "memory.max").write_text("1000000000\n")
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 0\noom_kill 0\n")
    monkeypatch.setattr(sudden_ends, "CONTROL_GROUP", group)
    return Settings(_env_file=None, data_dir=tmp_path)


def dead(settings: Settings, used: int, pid: int = GONE) -> None:
    sudden_ends.note(settings)
    (own,) = (settings.cache_path / "workers").glob("*.json")
    told = {**json.loads(own.read_text()), "pid": pid, "used": used}
    own.unlink()
    own.with_name(f"{socket.gethostname()}-{pid}.json").write_text(json.dumps(told))


def test_one_that_used_nearly_all_that_it_may_was_killed_for_that(settings: Settings) -> None:
    dead(settings, used=950_000_000)
    (told,) = sudden_ends.tell(settings)
    assert "950,000,000 bytes" in told
    assert "its limit is 1,000,000,000" in told
    assert "memory limit is the likely cause" in told
    assert sudden_ends.tell(settings) == [], "it is told once"


def test_one_that_used_little_may_have_been_ended_by_anybody_unless_the_system_counts_it(settings: Settings) -> None:
    dead(settings, used=1_000_000)
    assert "if nobody has ended it" in sudden_ends.tell(settings)[0]
    dead(settings, used=1_000_000)
    (sudden_ends.CONTROL_GROUP / "memory.events").write_text("oom_kill 1\n")
    assert "memory limit is the likely cause" in sudden_ends.tell(settings)[0]


def test_the_living_and_those_that_ended_in_order_are_not_told(settings: Settings) -> None:
    sudden_ends.note(settings)
    sudden_ends.end_in_order(settings)
    assert sudden_ends.tell(settings) == []
    dead(settings, used=1, pid=os.getppid())
    assert sudden_ends.tell(settings) == []


def test_a_container_that_is_started_again_has_the_number_of_the_one_before(settings: Settings) -> None:
    sudden_ends.note(settings)
    assert len(sudden_ends.tell(settings)) == 1
