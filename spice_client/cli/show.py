"""Jobs as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from spice_client.cli.console import is_narrow, print_table
from spice_client.words import SHORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spice_client.models import Job

STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "queued": "dim"}


def show_job(job: Job) -> None:
    """Write a job's id and state, and what came of it, to stdout."""
    console = Console(highlight=False, soft_wrap=True)
    name = f"  {job.name}" if job.name else ""
    state = (job.state, STYLES.get(job.state, ""))
    console.print(Text.assemble(("job ", "dim"), (str(job.id), "bold"), "  ", state, name))
    if job.result:
        _print_lines(console, job.result.lines())


def show_whole_job(job: Job) -> None:
    """Write all that a person asks about a job: what was asked for, how far it is, what came of it, and what to do."""
    show_job(job)
    console = Console(highlight=False, soft_wrap=True)
    _print_lines(console, _asked(job))
    if job.error:
        console.print(Text(f"  {job.error.title}", style="bold red"))
        console.print(Text(f"  {job.error.detail or ''}"))
    for command in _next(job):
        console.print(Text(f"  {command}", style="dim"))


def _print_lines(console: Console, lines: Iterable[tuple[str, str]]) -> None:
    for label, value in lines:
        console.print(Text.assemble((f"  {label:<12}", "dim"), value))


def _asked(job: Job) -> Iterable[tuple[str, str]]:
    if job.state == "running":
        yield "stage", f"{job.stage or ''}  {_line(job)}".strip()
    yield "dataset", job.dataset.uri or ", ".join(job.dataset.uris or ()) or f"registered as {job.dataset.id}"
    yield "model", job.model.uri
    budget = job.selection.budget
    rows = f"{budget.fraction or 0:.4g} of the usable rows"
    if budget.count is not None or budget.tokens is not None:
        rows = f"{budget.tokens:,} tokens" if budget.count is None else _rows(budget.count)
    yield "selection", f"{job.selection.method}, {rows}, conflict penalty {job.selection.conflict_penalty:g}"
    yield "submitted", _moment(job)
    if job.metadata:
        yield "metadata", ", ".join(f"{key}={value}" for key, value in job.metadata.items())


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _next(job: Job) -> Iterable[str]:
    if job.state == "succeeded":
        yield f"spice download {job.id} --rows"
        yield f"spice export {job.id} --format trl --out data"
        yield f"spice open {job.id}"
    elif not job.ended:
        yield f"spice watch {job.id}"


def show_jobs(jobs: Sequence[Job]) -> None:
    """Write a table of jobs to stdout: on a terminal with ids as short as they can be, elsewhere with whole ones."""
    characters = _telling([str(job.id) for job in jobs]) if is_narrow() else 36
    rows = [
        (
            str(job.id)[:characters],
            job.name or "",
            Text(job.state, style=STYLES.get(job.state, "")),
            _progress(job),
            _moment(job),
        )
        for job in jobs
    ]
    print_table(("ID", "NAME", "STATE", "PROGRESS", "CREATED"), rows, cut="NAME,PROGRESS")


def _telling(ids: Sequence[str]) -> int:
    """How many characters tell these ids apart."""
    return next(count for count in range(SHORT, 37) if len({one[:count] for one in ids}) == len(set(ids)))


def _moment(job: Job) -> str:
    return job.created_at.astimezone().strftime("%Y-%m-%d %H:%M" if is_narrow() else "%Y-%m-%d %H:%M:%S")


def _line(job: Job) -> str:
    return job.progress.line() if job.progress else ""


def _progress(job: Job) -> str:
    if job.state == "succeeded" and job.result:
        return f"{job.result.selected:,} of {job.result.rows_total:,} rows"
    if job.state == "failed" and job.error:
        return job.error.title
    line = _line(job)
    return f"{job.stage}: {line}" if job.state == "running" and line else job.stage or ""
