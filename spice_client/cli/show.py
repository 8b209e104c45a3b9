"""Jobs as text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spice_client.progress import duration, progress_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spice_client.models import Job, JobResult

WIDTH = 250
STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "queued": "dim"}


def show_job(job: Job) -> None:
    """Write a job's id and state, and what came of it, to stdout."""
    console = Console(highlight=False, soft_wrap=True)
    name = f"  {job.name}" if job.name else ""
    state = (job.state, STYLES.get(job.state, ""))
    console.print(Text.assemble(("job ", "dim"), (str(job.id), "bold"), "  ", state, name))
    if job.result:
        for label, value in _result_lines(job.result):
            console.print(Text.assemble((f"  {label:<12}", "dim"), value))


def _result_lines(result: JobResult) -> Iterable[tuple[str, str]]:
    yield "selected", f"{result.selected:,} of {result.rows_total:,} rows (stopped by {result.stop_reason})"
    if result.filtered:
        yield "filtered", ", ".join(f"{count:,} by {reason}" for reason, count in result.filtered.items())
    if result.suspects and result.suspects.rows:
        yield "suspects", f"{result.suspects.rows:,} rows look wrong, {result.suspects.picked:,} of them picked"
    yield "log det", f"{result.log_det:.3f} nats at alpha {result.alpha:.3g}"
    for name, rows in result.ignored_columns.items():
        yield "ignored", f"{name}: {rows:,} rows have it, and nothing reads it"
    value = result.certificate.value
    if value:
        yield "certificate", f"{value:.4f}: no subset of this size has more than {1 / value:.3f} times the information"
    if result.seconds:
        yield "time", ", ".join(f"{stage} {duration(spent)}" for stage, spent in result.seconds.items())


def show_jobs(jobs: Iterable[Job]) -> None:
    """Write a table of jobs to stdout."""
    table = Table(box=None, pad_edge=False)
    for heading in ("ID", "NAME", "STATE", "PROGRESS", "CREATED"):
        table.add_column(heading, no_wrap=heading != "PROGRESS", overflow="fold")
    for job in jobs:
        table.add_row(
            str(job.id),
            Text(job.name or ""),
            Text(job.state, style=STYLES.get(job.state, "")),
            Text(_progress(job)),
            job.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        )
    # without a terminal there is no width to keep to, and scripts want one line for each job
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(table)


def _progress(job: Job) -> str:
    if job.state == "succeeded" and job.result:
        return f"{job.result.selected:,} of {job.result.rows_total:,} rows"
    if job.state == "failed" and job.error:
        return job.error.title
    line = progress_line(job.progress)
    return f"{job.stage}: {line}" if job.state == "running" and line else job.stage or ""
