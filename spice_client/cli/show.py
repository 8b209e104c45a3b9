"""Jobs as text."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spice_client.cli.service import Json

WIDTH = 250
STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "queued": "dim"}


def duration(seconds: float) -> str:
    """Seconds as `4 s`, `3:07` or `2:10:00`."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.0f} s"
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:").removeprefix("0")


def progress_line(progress: Json | None) -> str:
    """`41984/100000 samples, 212 a second, 4:33 left`; what is not known is left out."""
    if not progress:
        return ""
    total = progress.get("total")
    parts = [f"{progress['done']:,}{f'/{total:,}' if total is not None else ''} {progress['unit']}"]
    rate, eta = progress.get("rate"), progress.get("eta_s")
    if rate:
        parts.append(f"{rate:.3g} a second" if rate < 1000 else f"{rate:,.0f} a second")  # noqa: PLR2004
    if eta is not None:
        parts.append(f"{duration(eta)} left")
    return ", ".join(parts)


def show_job(job: Json) -> None:
    """Write a job's id and state, and what came of it, to stdout."""
    console = Console(highlight=False, soft_wrap=True)
    state = job["state"]
    name = f"  {job['name']}" if job.get("name") else ""
    console.print(Text.assemble(("job ", "dim"), (job["id"], "bold"), "  ", (state, STYLES.get(state, "")), name))
    if result := job.get("result"):
        for label, value in _result_lines(result):
            console.print(Text.assemble((f"  {label:<12}", "dim"), value))


def _result_lines(result: Json) -> Iterable[tuple[str, str]]:
    yield "selected", f"{result['selected']:,} of {result['rows_total']:,} rows (stopped by {result['stop_reason']})"
    yield "log det", f"{result['log_det']:.3f} nats at alpha {result['alpha']:.3g}"
    certificate = result.get("certificate")
    value = certificate.get("value") if isinstance(certificate, dict) else certificate
    if value is not None:
        yield "certificate", f"{value:.4f}: no subset of this size has more than {1 / value:.3f} times the information"
    if seconds := result.get("seconds"):
        yield "time", ", ".join(f"{stage} {duration(spent)}" for stage, spent in seconds.items())


def show_jobs(jobs: Iterable[Json]) -> None:
    """Write a table of jobs to stdout."""
    table = Table(box=None, pad_edge=False)
    for heading in ("ID", "NAME", "STATE", "PROGRESS", "CREATED"):
        table.add_column(heading, no_wrap=heading != "PROGRESS", overflow="fold")
    for job in jobs:
        table.add_row(
            job["id"],
            Text(job.get("name") or ""),
            Text(job["state"], style=STYLES.get(job["state"], "")),
            Text(_progress(job)),
            datetime.fromisoformat(job["created_at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        )
    # without a terminal there is no width to keep to, and scripts want one line for each job
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(table)


def _progress(job: Json) -> str:
    if job["state"] == "succeeded" and job.get("result"):
        return f"{job['result']['selected']:,} of {job['result']['rows_total']:,} rows"
    if job["state"] == "failed" and job.get("error"):
        return str(job["error"].get("title") or "")
    line = progress_line(job.get("progress"))
    return f"{job['stage']}: {line}" if job["state"] == "running" and line else job.get("stage") or ""
