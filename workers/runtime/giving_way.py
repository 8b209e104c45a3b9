"""A long selection gives way: between its blocks the worker takes what other projects, or higher priorities, wait for.

What comes in between runs on a thread of its own, while the selection stands still where it is: its sketches stay in
memory, and nothing of it is computed twice. It gets at most as much time as the selection has had, so that neither
waits for the other for ever: a project's small job waits for less than a second behind another project's selection that
has run for some time, and the selection takes at most twice as long.

What it costs is memory: a selection that comes in between has its own sketches beside those of the one that stands
still. At most two stand still at a time. A process of its own for selections would cost as much memory, a second CUDA
context and a second copy of the libraries, all the time; a selection that is put away and begun anew would cost its
time again.

A schedule, which may take hours, keeps checkpoints: `others_wait` tells it when to be handed back at one of them.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from app.core.lifecycle import turns
from app.core.queue import KINDS
from workers.data.holds import Holds

if TYPE_CHECKING:
    from app.core.lifecycle.turns import Turn
    from workers.runtime.context import TakesTurns, WorkerContext

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
MOST_STANDING_STILL = 2


def others_wait(context: WorkerContext, turn: Turn) -> bool:
    """Whether something that this worker serves waits that comes before the rest of what it is at.

    A selection that stands still while this comes in between waits as well.

    Args:
        context: This worker.
        turn: What it is at.
    """
    if context.standing_still:
        return True
    served = [table for table, kind in KINDS.items() if kind in context.settings.worker_queues]
    with context.sessions() as session:
        return turns.others_wait(session, served, turn)


class GivingWay:
    """Of one selection: when it gives way, and for how long."""

    def __init__(self, context: WorkerContext, turn: Turn) -> None:
        """Begin to count the selection's time.

        Args:
            context: This worker.
            turn: Whose selection it is.
        """
        self._context = context
        self._turn = turn
        self._began = self._looked = time.monotonic()
        self._given_s = 0.0

    def look(self) -> None:
        """Work on what comes in between, if anything waits and the selection has had its time."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        had_s = now - self._began - self._given_s
        if self._given_s < had_s and self._context.standing_still < MOST_STANDING_STILL:
            self._give(had_s)
        self._looked = time.monotonic()

    def _give(self, had_s: float) -> None:
        context, take = self._context, self._context.take_turn
        while take is not None and self._given_s < had_s and not context.stopping.is_set():
            began = time.monotonic()
            if not _on_a_thread(context, take, self._turn):
                return
            self._given_s += time.monotonic() - began


def _on_a_thread(context: WorkerContext, take: TakesTurns, turn: Turn) -> bool:
    """Take one turn; what is the thread's own, as torch's modes and the names in logs are, stays the selection's."""
    taken = False

    def run() -> None:
        nonlocal taken
        try:
            taken = take(during=turn)
        except Exception:
            logger.exception("what came in between a selection has failed; the selection goes on")

    corpus, holds = context.corpus, context.holds
    context.corpus, context.holds = None, Holds()
    context.standing_still += 1
    thread = threading.Thread(target=run, name="in-between")
    try:
        thread.start()
        thread.join()
    finally:
        context.standing_still -= 1
        context.holds.drop_all()
        context.corpus, context.holds = corpus, holds
    return taken
