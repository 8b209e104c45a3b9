"""A job's report: one HTML file that needs nothing else, to keep with a training run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.jobs.schemas import JobResponse
    from app.reports.figures import Figure
    from app.results.rows_schemas import PickedRow
    from app.results.schemas import LeagueLine

_ASKED = (
    "dataset",
    "model",
    "gradients",
    "selection",
    "preset",
    "schedule",
    "extends",
    "limits",
    "timeout_s",
    "priority",
)
"""The parts of a job's request that say how it selects."""


@dataclass(frozen=True, slots=True)
class Report:
    """The contents of a report.

    Attributes:
        job: The job, succeeded.
        summary: Its result in words, a sentence or more each.
        figures: Drawn at the width of the page, and again at that of a phone.
        methods: The method and its baselines side by side.
        rows: The first picks, or None where they are not kept any more.
    """

    job: JobResponse
    summary: Sequence[str]
    figures: Sequence[Sequence[Figure]]
    methods: Sequence[LeagueLine]
    rows: Sequence[PickedRow] | None


def render(report: Report) -> str:
    """The report as HTML. All that a client or a dataset wrote is escaped by the template engine."""
    settings = report.job.model_dump(mode="json", include=set(_ASKED))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            job=report.job,
            result=report.job.result,
            summary=report.summary,
            figures=list(zip(*report.figures, strict=True)),
            methods=report.methods,
            targeted=any(one.target_covered is not None for one in report.methods),
            sources=list(dict.fromkeys(name for one in report.methods for name in one.sources)),
            rows=report.rows,
            settings=_flat({part: settings[part] for part in _ASKED}),
            style=figure_style() + files("app.reports").joinpath("templates/report.css").read_text("utf-8"),
        )
    )


@cache
def figure_style() -> str:
    """The style sheet of the figures."""
    return files("app.web").joinpath("figures.css").read_text("utf-8")


def _flat(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names with their values, without those that are null."""
    found: list[tuple[str, str]] = []
    for name, value in fields.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            found += [(f"{prefix}{name}", ", ".join(map(str, value)))] if value else []
        elif value is not None:
            found.append((f"{prefix}{name}", str(value)))
    return found


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("app.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
