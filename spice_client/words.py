"""Jobs and numbers in words: what the shell, a notebook and an interactive session say of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spice_client.models import Job, JobResult, Progress

SHORT = 8
"""Characters of an id that tell jobs apart; every command takes them."""


def short(job_id: object) -> str:
    """The first characters of an id."""
    return str(job_id)[:SHORT]


def duration(seconds: float) -> str:
    """Seconds as `4 s`, `3:07` or `2:10:00`."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.0f} s"
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:").removeprefix("0")


def progress_line(progress: Progress | None) -> str:
    """`41984/100000 samples, 212 a second, 4:33 left`; what is not known is left out."""
    if not progress:
        return ""
    total, rate = progress.total, progress.rate
    parts = [f"{progress.done:,}{f'/{total:,}' if total is not None else ''} {progress.unit}"]
    if rate:
        parts.append(f"{rate:.3g} a second" if rate < 1000 else f"{rate:,.0f} a second")  # noqa: PLR2004
    if progress.eta_s is not None:
        parts.append(f"{duration(progress.eta_s)} left")
    return ", ".join(parts)


def certificate_words(value: float) -> str:
    """What a certificate's value proves."""
    return f"{value:.4f}: no subset of this size has more than {1 / value:.3f} times the information"


def job_summary(job: Job) -> str:
    """A job in a line: id, state, name, and what came of it."""
    parts = [f"job {short(job.id)}", job.state if job.state != "running" or not job.stage else f"running ({job.stage})"]
    if job.name:
        parts.append(repr(job.name))
    if job.result:
        parts += [f"{job.result.selected:,} of {job.result.rows_total:,} rows", f"{job.result.log_det:.4g} nats"]
    elif job.error:
        parts.append(job.error.title)
    return ", ".join(parts)


def result_lines(result: JobResult) -> Iterable[tuple[str, str]]:
    """What a job came to: a label and a sentence for each thing that is worth knowing."""
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
        yield "certificate", certificate_words(value)
    if result.seconds:
        yield "time", ", ".join(f"{stage} {duration(spent)}" for stage, spent in result.seconds.items())
