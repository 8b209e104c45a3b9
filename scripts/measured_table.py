"""Writes the tables of measured figures out of benchmarks/results.json (`make docs-measured`).

docs/measured.md has what is promised; a page of docs/ has all figures of its subject. --check only says which page is
stale: a figure in a table is always one that `make bench` has written.
"""

from __future__ import annotations

import sys
from typing import Any

from scripts.measured_part import is_made, results

PROMISED = "docs/measured.md"
SUBJECTS = {
    "docs/selection.md": "selector/",
    "docs/gradients.md": "gradients/",
    "docs/operations.md": "service/",
    "docs/reliability.md": "service/soak_",
}
WHOLE_FROM = 1000
"""Figures as large as that are told without their decimals."""


def render(rows: list[dict[str, Any]]) -> str:
    """The table, and what it was measured on."""
    lines = ["| figure | value | promise | against |\n", "|---|---|---|---|\n"]
    lines += [f"| `{row['name']}` | {_value(row)} | {_promise(row)} | {_cell(row['baseline'])} |\n" for row in rows]
    machines = sorted({row["machine"] for row in rows})
    versions = {name: version for row in rows for name, version in row["versions"].items()}
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "".join(lines) + f"\n{'; '.join(machines)}; {packages}.\n"


def shown(page: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that a page shows."""
    if page == PROMISED:
        return [row for row in rows if row["target"] is not None]
    return [row for row in rows if row["name"].startswith(SUBJECTS[page])]


def main(arguments: list[str]) -> int:
    """Write the pages, or say which are stale; the exit code."""
    rows, check = results(), "--check" in arguments
    made = [is_made(page, "measured", render(shown(page, rows)), check=check) for page in (PROMISED, *SUBJECTS)]
    return 0 if all(made) else 1


def _value(row: dict[str, Any]) -> str:
    value = row["value"]
    number = f"{value:,.0f}" if float(value).is_integer() or abs(value) >= WHOLE_FROM else f"{value:.3g}"
    return f"{number} {row['unit']}".strip()


def _promise(row: dict[str, Any]) -> str:
    if row["target"] is None:
        return ""
    at_most = (row["value"] <= row["target"]) == row["holds"]  # the side of its bound that a figure should be on
    return f"at {'most' if at_most else 'least'} {row['target']:g}, {'holds' if row['holds'] else '**missed**'}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
