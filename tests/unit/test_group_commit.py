"""Group commit: who comes while a group is under way goes into the next one, and each hears what came of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from app.http import group_commit
from app.http.group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Sequence


class Slow:
    """Carries groups out when it is let go on: what it was given, and tenfold for a result."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.go_on = threading.Event()
        self._begun = threading.Semaphore(0)

    async def begun(self) -> None:
        """Another group is being carried out."""
        assert await asyncio.to_thread(self._begun.acquire, timeout=10)

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(items))
        self._begun.release()
        assert self.go_on.wait(10)
        if 99 in items:
            raise RuntimeError("all")
        return [ValueError(item) if item < 0 else 10 * item for item in items]


def gathered(*items: int, name: str = "a", first: int = 1) -> tuple[list[Any], list[list[int]]]:
    """What comes of `first`, and of the items that come while it is carried out; and the groups."""

    async def run() -> tuple[list[Any], list[list[int]]]:
        commit, carry_out = GroupCommit[int, int](), Slow()
        tasks = [asyncio.create_task(commit.carried_out("a", first, carry_out))]
        await carry_out.begun()
        tasks += [asyncio.create_task(commit.carried_out(name, item, carry_out)) for item in items]
        await asyncio.sleep(0)
        if name != "a":
            await carry_out.begun()
        carry_out.go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True), carry_out.groups

    return asyncio.run(run())


def test_the_first_goes_at_once_and_those_after_it_together() -> None:
    assert gathered(2, 3, 4) == ([10, 20, 30, 40], [[1], [2, 3, 4]])


def test_another_name_does_not_wait() -> None:
    assert gathered(2, name="b") == ([10, 20], [[1], [2]])


def test_each_hears_of_its_own_failure_alone() -> None:
    outcomes, _ = gathered(2, -3, 4)
    assert (outcomes[1], repr(outcomes[2]), outcomes[3]) == (20, "ValueError(-3)", 40)


def test_a_group_that_fails_fails_for_all_of_it_and_the_next_goes_on() -> None:
    outcomes, groups = gathered(2, 3, first=99)
    assert repr(outcomes[0]) == "RuntimeError('all')"
    assert outcomes[1:] == [20, 30]
    assert groups == [[99], [2, 3]]


def test_no_group_has_more_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MOST", 2)
    assert gathered(2, 3, 4) == ([10, 20, 30, 40], [[1], [2, 3], [4]])


def test_who_goes_away_leaves_the_others_alone_and_nothing_is_left_behind() -> None:
    async def run() -> list[int]:
        commit, carry_out = GroupCommit[int, int](), Slow()
        gone, stays = (asyncio.create_task(commit.carried_out("a", item, carry_out)) for item in (1, 2))
        await carry_out.begun()
        gone.cancel()
        carry_out.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return [await stays, await commit.carried_out("a", 3, carry_out)]

    assert asyncio.run(run()) == [20, 30]
