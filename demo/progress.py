"""A job's progress: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

WAITING = "Waiting for a worker"
STAGES = {
    "reading": "Reading the rows",
    "gradients": "A gradient for every row",
    "selecting": "Selecting",
    "publishing": "Publishing",
}
STEPS = 10
RUNNING = {"queued", "running"}


def show(console: Console, jobs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Shows the states of a job as they come and returns the last."""
    return _with_bar(console, jobs) if console.is_terminal else _with_lines(console, jobs)


def describe(progress: dict[str, Any] | None) -> str:
    """What is done, how fast, and what is left: `96 of 320 samples, 1.3/s, 2:52 left`."""
    if not progress:
        return ""
    unit = progress["unit"]
    done = _amount(progress["done"], unit)
    if progress["total"] is not None:
        done += f" of {_amount(progress['total'], unit)}"
    parts = [done if unit == "bytes" else f"{done} {unit}"]
    if progress["rate"]:
        parts.append(f"{decimal(round(progress['rate'])) if unit == 'bytes' else format(progress['rate'], '.1f')}/s")
    if progress["eta_s"] is not None:
        minutes, seconds = divmod(round(progress["eta_s"]), 60)
        parts.append(f"{minutes}:{seconds:02} left")
    return ", ".join(parts)


def _amount(number: int, unit: str) -> str:
    return decimal(number) if unit == "bytes" else str(number)


def _with_bar(console: Console, jobs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[state]}"),
    )
    job: dict[str, Any] = {}
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task(WAITING, total=None, state="")
        stage = None
        for job in jobs:
            if job["stage"] and job["stage"] != stage:
                if stage is not None:
                    bars.update(bar, total=1, completed=1)
                    bar = bars.add_task("", total=None, state="")
                stage = job["stage"]
            progress = job["progress"] or {"done": 0, "total": None}
            bars.update(
                bar,
                description=STAGES.get(stage or "", WAITING),
                completed=progress["done"],
                total=progress["total"],
                state=describe(job["progress"]),
            )
        if job.get("state") == "succeeded":
            bars.update(bar, total=1, completed=1)
    return job


def _with_lines(console: Console, jobs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    job: dict[str, Any] = {}
    shown = None
    for job in jobs:
        if job["state"] in RUNNING and (step := _step(job)) != shown:
            shown = step
            console.print(": ".join(filter(None, (STAGES.get(job["stage"], WAITING), describe(job["progress"])))))
    return job


def _step(job: dict[str, Any]) -> tuple[str | None, int]:
    """Changes with the stage, and with every tenth of it."""
    progress = job["progress"] or {}
    return job["stage"], STEPS * progress.get("done", 0) // (progress.get("total") or STEPS)
