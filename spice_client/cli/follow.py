"""Watching a job until it ends."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from spice_client.cli.exit_codes import OF_STATE
from spice_client.cli.show import duration, progress_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spice_client.cli.failure import CommandFailedError
    from spice_client.cli.service import Json, Service

QUIET_S = 15.0  # without a terminal: a line for each stage, and one in this many seconds


class View(Protocol):
    """Where the state of a watched job is shown."""

    def show(self, job: Json) -> None:
        """Show a job as it is now."""

    def waiting(self, failure: CommandFailedError) -> None:
        """Say that the service cannot be reached just now."""


def follow(service: Service, job_id: str, view: View, every_s: float, patience_s: float) -> Json:
    """Poll a job until it ends.

    Args:
        service: The service.
        job_id: The job.
        view: Is shown each answer.
        every_s: Seconds between two looks.
        patience_s: Seconds that the service may be out of reach.

    Returns:
        The job in its last state.

    Raises:
        CommandFailedError: There is no such job, or the service stays out of reach.
    """
    while True:
        job = service.patiently(lambda: service.job(job_id), patience_s, view.waiting)
        view.show(job)
        if job["state"] in OF_STATE:
            return job
        time.sleep(every_s)


@contextmanager
def progress_view() -> Iterator[View]:
    """A bar on a terminal; elsewhere a line now and then. Both on stderr: stdout is the result's."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield LineView(console)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[numbers]}"),
        console=console,
    ) as bars:
        yield BarView(bars)


class BarView:
    """One bar for each stage; those that are done stay in sight, with the time they took."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._stage: str | None = None
        self._task: TaskID | None = None
        self._since = time.monotonic()

    def show(self, job: Json) -> None:
        """Show a job as it is now."""
        stage = job["stage"] or job["state"]
        if job["state"] in OF_STATE:
            self._finish(whole=job["state"] == "succeeded")
            return
        if stage != self._stage:
            self._finish(whole=True)
            self._stage, self._since = stage, time.monotonic()
            self._task = self._bars.add_task(f"{stage:<10}", total=None, numbers="")
        if self._task is not None:
            progress = job["progress"] or {}
            numbers = progress_line(job["progress"])
            self._bars.update(
                self._task, completed=progress.get("done", 0), total=progress.get("total"), numbers=numbers
            )

    def waiting(self, failure: CommandFailedError) -> None:
        """Say that the service cannot be reached just now."""
        if self._task is not None:
            self._bars.update(self._task, numbers=f"[yellow]waiting: {failure.problem['title']}")

    def _finish(self, *, whole: bool) -> None:
        if self._task is None:
            return
        seconds = time.monotonic() - self._since
        if whole:
            total = self._bars.tasks[self._task].total or 1
            self._bars.update(self._task, completed=total, total=total, numbers=f"took {duration(seconds)}")
        self._bars.stop_task(self._task)
        self._task = None


class LineView:
    """A line for each new stage, and one now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage: str | None = None
        self._said_at = 0.0

    def show(self, job: Json) -> None:
        """Show a job as it is now."""
        stage = job["stage"] if job["state"] == "running" else job["state"]
        if stage == self._stage and time.monotonic() - self._said_at < QUIET_S:
            return
        self._stage, self._said_at = stage, time.monotonic()
        numbers = progress_line(job["progress"]) if job["state"] == "running" else ""
        self._console.print(Text(f"{stage}  {numbers}".rstrip()), soft_wrap=True)

    def waiting(self, failure: CommandFailedError) -> None:
        """Say that the service cannot be reached just now."""
        self._console.print(Text(f"waiting: {failure.problem['detail']}"), soft_wrap=True)
