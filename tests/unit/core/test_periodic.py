"""The one loop: nothing that its work raises ends it, and whoever looks hears when it stands still."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import SQLAlchemyError

from app.core import periodic
from app.core.periodic import Periodic
from app.core.queue import QueueUnavailable
from app.core.storage import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Work:
    """Raises what it is given, one after the other, then does nothing."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.turns = 0

    def __call__(self) -> None:
        self.turns += 1
        if self.errors:
            raise self.errors.pop(0)


def eventually(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def started() -> Iterator[list[Periodic]]:
    loops: list[Periodic] = []
    yield loops
    for loop in loops:
        loop.stop()


@pytest.mark.parametrize(
    ("error", "traceback"),
    [
        (SQLAlchemyError("Postgres is away"), False),
        (QueueUnavailable("Redis is away"), False),
        (StorageFailed("the store is away"), False),
        (KeyError("nobody foresaw this"), True),
        (MemoryError(), True),
        (AssertionError(), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_turn_that_fails_is_told_and_followed_by_the_next(
    started: list[Periodic], caplog: pytest.LogCaptureFixture, error: Exception, *, traceback: bool
) -> None:
    work = Work(error, error)
    started.append(Periodic("the tide", 0.01, work).start())
    eventually(lambda: work.turns >= 4)
    told = [record for record in caplog.records if "the tide failed, and is tried again" in record.message]
    assert len(told) == 2
    assert [record.exc_info is not None for record in told] == [traceback] * 2
    assert {record.levelno for record in told} == {logging.ERROR if traceback else logging.WARNING}
    assert started[0].standstill() is None


def test_a_loop_that_fails_or_hangs_for_long_stands_still(
    started: list[Periodic], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "PATIENCE_S", 0.2)
    go_on, failing = threading.Event(), Work(*[KeyError("x")] * 1000)
    started += [
        Periodic("fails", 0.01, failing).start(),
        Periodic("hangs", 0.01, lambda: go_on.wait(20)).start(),
        Periodic("turns", 0.01, Work()).start(),
        Periodic("waits for its first turn", 0.01, Work(), first_s=3600).start(),
    ]
    assert [loop.standstill() for loop in started] == [None] * 4
    eventually(lambda: all(loop.standstill() for loop in started[:2]))
    assert "KeyError" in str(started[0].standstill())
    assert "a turn does not end" in str(started[1].standstill())
    assert [loop.standstill() for loop in started[2:]] == [None] * 2
    go_on.set()
    failing.errors.clear()
    eventually(lambda: not any(loop.standstill() for loop in started))


def test_a_loop_that_was_never_started_or_was_stopped_does_not_turn() -> None:
    work = Work()
    loop = Periodic("the tide", 0.01, work)
    assert loop.standstill() == "is not running"
    loop.start()
    eventually(lambda: work.turns > 0)
    loop.stop()
    assert loop.standstill() == "is not running"
    turns = work.turns
    time.sleep(0.05)
    assert work.turns == turns


def test_the_first_turn_comes_when_it_is_asked_for_and_work_may_stop_its_own_loop() -> None:
    turned = threading.Event()
    loop = Periodic("once", 3600, lambda: (turned.set(), loop.stop()), first_s=0)
    loop.start()
    assert turned.wait(5)
    eventually(lambda: loop.standstill() == "is not running")
