"""The zoo's table in docs/models.md: a row for every type, which is also where the findings are kept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import transformers

from scripts.zoo.configs import causal_types
from scripts.zoo.measure import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scripts.zoo.measure import Finding

BEGIN, END = "<!-- zoo: begin -->", "<!-- zoo: end -->"
HEAD = (
    "| type | lora | linear | last_layer | experts | left out by default | bfloat16 | why not |\n"
    "|---|---|---|---|---|---|---|---|\n"
)
VERSION = re.compile(r"transformers (\S+):")
CELLS = 8
TOLERANCE = 1e-4
"""Largest relative difference from autograd that an accepted model may have in float32."""
REASON = 150
"""Characters of a refusal that a cell holds."""


def read_rows(page: Path) -> dict[str, str]:
    """The rows of the table by type."""
    part = page.read_text().partition(BEGIN)[2].partition(END)[0]
    lines = [line for line in part.splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: line for line in lines}


def version_of(page: Path) -> str | None:
    """The version of transformers that the table is of."""
    found = VERSION.search(page.read_text().partition(BEGIN)[2])
    return None if found is None else found[1]


def write_rows(page: Path, rows: Mapping[str, str]) -> None:
    """Put the table of the rows into the page."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    table = HEAD + "".join(f"{rows[kind]}\n" for kind in sorted(rows))
    page.write_text(
        f"{before}{BEGIN}\ntransformers {transformers.__version__}: {len(rows)} types.\n\n{table}{END}{after}"
    )


def row(finding: Finding) -> str:
    """The line of a type."""
    cells = [f"`{finding.kind}`"]
    for target in TARGETS:
        if target in finding.errors:
            error = finding.errors[target]
            cells.append(f"{error:.0e}" if error <= TOLERANCE else f"**{error:.0e}**")
        else:
            cells.append("refused" if target in finding.refused else "")
    cells.append(", ".join(f"`{_short(name)}`" for name in finding.left_out))
    cells.append("" if finding.bfloat16 is None else f"{finding.bfloat16:.0e}")
    reasons = dict.fromkeys(finding.refused.values())
    why = f"not tried: {finding.built}" if finding.built else " ".join(reasons)
    cells.append(_plain(why))
    return f"| {' | '.join(cells)} |"


def problems(page: Path) -> list[str]:
    """What is wrong with the table: types it lacks, another version's, gradients that are not autograd's."""
    rows, version = read_rows(page), version_of(page)
    found = [f"{kind}: has no row, run python -m scripts.zoo {kind}" for kind in causal_types() if kind not in rows]
    found += [f"{kind}: is not a type of the installed transformers" for kind in rows if kind not in causal_types()]
    if version != transformers.__version__:
        found.append(f"the table is of transformers {version}, {transformers.__version__} is installed")
    for kind, line in rows.items():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        found += [f"{kind}: differs from autograd by {cell}" for cell in cells if cell.startswith("**")]
        if "internal-error" in line:
            found.append(f"{kind}: ends in an error of no message")
    return found


def _short(name: str) -> str:
    """A name without what comes before the block's number."""
    return name.partition(".*.")[2] or name


def _plain(text: str) -> str:
    """One line that a table's cell can hold."""
    line = " ".join(text.replace("|", "/").replace("<", "(").replace(">", ")").split())
    return line if len(line) <= REASON else f"{line[:REASON]}..."
