"""The command on the methods of a job side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spice_client.cli.console import print_table
from spice_client.cli.ids import JobId, whole_id
from spice_client.cli.options import PATIENCE_S, URL, ApiKey, AsJson, Url, WaitS, echo_json, service

if TYPE_CHECKING:
    from spice_client.models import League, LeagueLine

NUMBERS = ("rows", "tokens", "log-det", "conflict", "overlap")
OF_TARGET = ("target covered", "target cosine")


def league(
    job_id: JobId,
    *,
    patience: WaitS = PATIENCE_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Put a job's method and its baselines side by side, with what proofs of the job say of them."""
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        found = client.league(whole_id(client, job_id))
    if as_json:
        echo_json(found.document())
    else:
        print_league(found)


def print_league(found: League) -> None:
    """Write the table to stdout, a line for each method, the job's own with a star."""
    targeted = any(line.target_covered is not None for line in found.methods)
    sources = list(dict.fromkeys(name for line in found.methods for name in line.sources))
    numbers = [*NUMBERS, *(OF_TARGET if targeted else ()), *sources]
    rows = [
        [
            *_cells(line, targeted=targeted),
            *(f"{line.sources.get(name, 0):.0%}" for name in sources),
            ", ".join(f"{one.verdict} ({one.metric} against {one.against})" for one in line.verdicts),
        ]
        for line in found.methods
    ]
    print_table(["method", *numbers, "proofs"], rows, cut="proofs", right=",".join(numbers))


def _cells(line: LeagueLine, *, targeted: bool) -> list[str]:
    cells = [
        f"{line.method}{' *' if line.requested else ''}",
        f"{line.rows:,.0f}",
        f"{line.tokens:,.0f}",
        f"{line.log_det:.2f}",
        f"{line.mean_conflict:.4f}",
        f"{line.overlap:.2f}",
    ]
    return [*cells, f"{line.target_covered or 0:.2f}", f"{line.target_cosine or 0:.3f}"] if targeted else cells
