"""Waiting for a job: by its events where the service streams them, else by looking now and then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from spice_client.models import Dataset, Job, SucceededJob
from spice_client.paths import DatasetLike, JobLike, dataset_path, id_of, job_path
from spice_client.problems import JobCancelled, JobFailed, NotTheService, Refused, WaitTimedOut
from spice_client.progress import View, view_of
from spice_client.steps import Ask, Listen, Pause, Steps, ask_for

if TYPE_CHECKING:
    from spice_client.models import Event

EVENT_STREAM = {"Accept": "text/event-stream", "Cache-Control": "no-store"}


def wait(
    job: JobLike,
    *,
    timeout: float | None = None,
    every: float = 2.0,
    progress: bool | View | None = None,
    check: bool = True,
) -> Steps[Job]:
    """Wait until a job ends.

    Args:
        job: The job, or its id.
        timeout: Seconds to wait at most; None for ever. The job goes on either way.
        every: Seconds between two looks, where the service does not stream its events.
        progress: True for a bar on a terminal or in a notebook and a line now and then elsewhere, on stderr; False for
            nothing; None for a bar on a terminal or in a notebook alone; or a view of your own.
        check: Whether a job without a subset is an exception.

    Returns:
        The job in its last state; with `check` a `SucceededJob`, whose `result` is there.

    Raises:
        JobFailed: The job failed, and `check` is set.
        JobCancelled: It was cancelled, and `check` is set.
        WaitTimedOut: The time is over.
        NotFound: There is no such job, or not any more.
    """
    with view_of(progress) as view:
        ended = yield from _follow(job, None if timeout is None else time.monotonic() + timeout, every, view)
    if ended is None:
        raise WaitTimedOut(id_of(job), timeout or 0.0)
    if check and ended.state == "failed":
        raise JobFailed(ended)
    if check and ended.state == "cancelled":
        raise JobCancelled(ended)
    return SucceededJob.model_validate(ended.model_dump(exclude_unset=True)) if check else ended


def wait_for_dataset(dataset: DatasetLike, *, timeout: float | None = None, every: float = 1.0) -> Steps[Dataset]:
    """Wait until a worker has read a registered dataset, or could not.

    Args:
        dataset: The dataset, or its id.
        timeout: Seconds to wait at most; None for ever.
        every: Seconds between two looks.

    Raises:
        WaitTimedOut: The time is over.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        found = yield from ask_for(Dataset, Ask("GET", dataset_path(dataset)))
        if found.ended:
            return found
        if deadline is not None and time.monotonic() >= deadline:
            raise WaitTimedOut(id_of(dataset), timeout or 0.0)
        yield Pause(every)


def _follow(job: JobLike, deadline: float | None, every: float, view: View) -> Steps[Job | None]:
    look = Ask("GET", job_path(job), waiting=view.waiting)
    streamed = True
    while True:
        current = yield from ask_for(Job, look)
        view.show(current)
        if current.ended:
            return current
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return None
        if streamed:
            streamed = yield from _listen(current, left, view)
        else:
            yield Pause(every if left is None else min(every, left))


def _listen(job: Job, for_s: float | None, view: View) -> Steps[bool]:
    """Show a job's events as they come.

    Returns:
        Whether the stream told anything. One that does not is held back on its way, or ended by it.
    """
    hearing = _Hearing(job, view)
    try:
        yield Listen(Ask("GET", job_path(job, "events"), headers=EVENT_STREAM), hearing.hear, for_s)
    except (NotTheService, Refused):
        return False  # a service without events, or one that can't serve just now
    return hearing.heard


class _Hearing:
    def __init__(self, job: Job, view: View) -> None:
        self._job = job
        self._seen = job.updated_at
        self._view = view
        self.heard = False

    def hear(self, event: Event) -> None:
        self.heard = True
        if self._seen is None or event.at > self._seen:  # a stream begins with what there was
            self._job = self._job.after(event)
            if not self._job.ended:  # the last state is shown with what came of it
                self._view.show(self._job)
