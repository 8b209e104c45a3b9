"""`spice estimate`: what a job would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from spice_client.cli.options import URL, ApiKey, AsJson, Budget, DatasetName, ModelName, Url, WaitS, echo_json, service
from spice_client.cli.request import RequestFlags, build_job_request
from spice_client.words import duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spice_client.models import Estimate, Seconds

PATIENCE_S = 60.0
UNITS = ("B", "kB", "MB", "GB", "TB")


def estimate(  # noqa: PLR0913 - one parameter for each flag
    request: Annotated[
        str | None, typer.Argument(metavar="REQUEST.json", help="The request; `-` reads stdin.", show_default=False)
    ] = None,
    *,
    dataset: DatasetName = None,
    model: ModelName = None,
    budget: Budget = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Any field, as in `selection.conflict_penalty=0.2`."),
    ] = None,
    patience: WaitS = PATIENCE_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Check a request, and tell the time, tokens, bytes and memory of its job. No job is made."""
    flags = RequestFlags(dataset, model, budget, None, [], setting or [])
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        show_estimate(client.estimate(build_job_request(request, flags)), as_json=as_json)


def show_estimate(found: Estimate, *, as_json: bool) -> None:
    """Write an estimate to stdout."""
    if as_json:
        echo_json(found.document())
        return
    console = Console(highlight=False, soft_wrap=True)
    for label, value in _lines(found):
        console.print(Text.assemble((f"  {label:<12}", "dim"), value))
    for problem in found.problems or ():
        console.print(Text.assemble(("  careful     ", "yellow"), f"{problem.field} {problem.message}"))


def _lines(found: Estimate) -> Iterable[tuple[str, str]]:
    if found.seconds is not None:
        by_stage = ", ".join(f"{stage} {duration(one.likely)}" for stage, one in found.seconds.stages.items())
        yield "time", f"{_range(found.seconds)}: {by_stage}"
        yield "", f"on {found.workers} x {found.device}, by {found.basis}"
    yield "rows", f"{found.rows:,}, of which {found.rows_rejected:,} can't be used ({found.rows_sampled:,} looked at)"
    yield "tokens", f"{found.tokens:,}; gradients of {found.gradient_tokens:,}"
    if found.rows_overlapping is not None:
        yield "overlapping", f"{found.rows_overlapping:,} rows share text with the evaluation set and are not picked"
    yield "selected", f"{found.selected:,}"
    yield "memory", size(found.memory_bytes or 0)
    yield "storage", size(found.bytes or 0)


def _range(seconds: Seconds) -> str:
    return f"{duration(seconds.likely)} ({duration(seconds.low)} to {duration(seconds.high)})"


def size(count: int) -> str:
    """Bytes, as a person reads them."""
    shown, unit = float(count), 0
    while shown >= 1000 and unit < len(UNITS) - 1:  # noqa: PLR2004
        shown, unit = shown / 1000, unit + 1
    return f"{shown:.{0 if unit == 0 else 1}f} {UNITS[unit]}"
