"""Group commit: what comes while a transaction is under way waits, and goes together into the next one.

A transaction costs some round trips and a flush of Postgres's log, however much is in it. Of few requests at a time
each has its own, at once; of many at a time, some share one. Who shares one has the same name here, such as a project.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from anyio import to_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST: Final = 100
"""Items of a group, so that the first of many does not wait for all of them."""


class GroupCommit(Generic[Item, Result]):
    """Gathers items into groups; for the coroutines of one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, list[tuple[Item, asyncio.Future[Result]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def carried_out(
        self, name: Hashable, item: Item, carry_out: Callable[[Sequence[Item]], Sequence[Result | Exception]]
    ) -> Result:
        """What came of an item, once its group is committed.

        Args:
            name: Of the groups that it may be in; one of them is carried out at a time.
            item: Goes into the next group.
            carry_out: Commits a group, on a thread, and tells of each item what came of it; an exception is raised
                here. What `carry_out` itself raises is raised for each item.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if name in self._waiting:
            self._waiting[name].append((item, future))
        else:
            self._waiting[name] = [(item, future)]
            # The first request's context is not that of the group.
            task = asyncio.create_task(self._run(name, carry_out), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _run(self, name: Hashable, carry_out: Callable[[Sequence[Item]], Sequence[Result | Exception]]) -> None:
        waiting = self._waiting[name]
        while waiting:
            group = waiting[:MOST]
            del waiting[:MOST]
            try:
                outcomes: Sequence[Any] = await to_thread.run_sync(carry_out, [item for item, _ in group])
            except Exception as error:  # noqa: BLE001 - raised where the items came from
                outcomes = [error] * len(group)
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if future.cancelled():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        del self._waiting[name]
