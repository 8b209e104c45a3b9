"""How far a job is, on a terminal or in a log."""

from __future__ import annotations

import importlib
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from spice_client.notebook import bar_html
from spice_client.words import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spice_client.models import Job
    from spice_client.problems import SpiceError

QUIET_S = 15.0  # without a terminal: a line for each stage, and one in this many seconds


class View(Protocol):
    """Where the state of a watched job is shown."""

    def show(self, job: Job) -> None:
        """Show a job as it is now."""

    def waiting(self, failure: SpiceError) -> None:
        """Say that the service cannot be reached just now."""


@contextmanager
def view_of(progress: bool | View | None) -> Iterator[View]:
    """The view that `progress` asks for.

    Args:
        progress: True for a bar on a terminal or in a notebook and a line now and then elsewhere; False for nothing;
            None for a bar on a terminal or in a notebook alone; or a view itself.
    """
    console = Console(stderr=True, highlight=False)  # stdout is the result's
    if progress is not None and not isinstance(progress, bool):
        yield progress
    elif progress is not False and console.is_jupyter:
        yield NotebookView()
    elif progress is False or (progress is None and not console.is_terminal):
        yield Unseen()
    elif not console.is_terminal:
        yield LineView(console)
    else:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[numbers]}"))
        with Progress(*columns, console=console) as bars:
            yield BarView(bars)


class Unseen:
    """Shows nothing."""

    def show(self, job: Job) -> None:
        """Show a job as it is now."""

    def waiting(self, failure: SpiceError) -> None:
        """Say that the service cannot be reached just now."""


class BarView:
    """One bar for each stage; those that are done stay in sight, with the time they took."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._stage: str | None = None
        self._task: TaskID | None = None
        self._since = time.monotonic()

    def show(self, job: Job) -> None:
        """Show a job as it is now."""
        stage = _where(job, self._stage)
        if job.ended:
            self._finish(whole=job.state == "succeeded")
            return
        if stage != self._stage:
            self._finish(whole=True)
            self._stage, self._since = stage, time.monotonic()
            self._task = self._bars.add_task(f"{stage:<10}", total=None, numbers="")
        if self._task is not None:
            done, total = (job.progress.done, job.progress.total) if job.progress else (0, None)
            self._bars.update(self._task, completed=done, total=total, numbers=_line(job))

    def waiting(self, failure: SpiceError) -> None:
        """Say that the service cannot be reached just now."""
        if self._task is not None:
            self._bars.update(self._task, numbers=f"[yellow]waiting: {failure.title}")

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

    def show(self, job: Job) -> None:
        """Show a job as it is now."""
        stage = _where(job, self._stage)
        if stage == self._stage and time.monotonic() - self._said_at < QUIET_S:
            return
        self._stage, self._said_at = stage, time.monotonic()
        numbers = _line(job) if job.state == "running" else ""
        self._console.print(Text(f"{stage}  {numbers}".rstrip()), soft_wrap=True)

    def waiting(self, failure: SpiceError) -> None:
        """Say that the service cannot be reached just now."""
        self._console.print(Text(f"waiting: {failure.detail or failure.title}"), soft_wrap=True)


class NotebookView:
    """A bar in the notebook's output, which moves as the job does."""

    def __init__(self) -> None:
        self._display: Any = importlib.import_module("IPython.display")
        self._handle: Any = None
        self._stage: str | None = None

    def show(self, job: Job) -> None:
        """Show a job as it is now."""
        share = (job.progress.done, job.progress.total) if job.progress and job.progress.total else None
        self._stage = _where(job, self._stage)
        self._put(bar_html(self._stage, "" if job.ended else _line(job), share, moves=not job.ended))

    def waiting(self, failure: SpiceError) -> None:
        """Say that the service cannot be reached just now."""
        self._put(bar_html("waiting", failure.title))

    def _put(self, html: str) -> None:
        shown = self._display.HTML(html)
        if self._handle is None:
            self._handle = self._display.display(shown, display_id=True)
        else:
            self._handle.update(shown)


def _where(job: Job, before: str | None) -> str:
    """The stage or state to tell; between two turns of workers a job is queued, and for who watches it goes on."""
    if job.state == "queued":
        return before or job.state
    return job.state if job.ended else job.stage or job.state


def _line(job: Job) -> str:
    return job.progress.line() if job.progress else ""
