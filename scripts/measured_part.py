"""The part of a page, between two marks, that is made out of what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"


def results() -> list[dict[str, Any]]:
    """The rows that `make bench` has written."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def is_made(page: str, kind: str, part: str, *, check: bool, made_by: str = "docs-measured") -> bool:
    """Write a page's part anew, or with `check` only say whether it is as it would be written.

    Args:
        page: Below the project's directory.
        kind: The word in the marks.
        part: What belongs between them.
        check: Write nothing; say on stderr what is stale.
        made_by: The target of `make` that the mark names.

    Raises:
        ValueError: The page lacks one of the marks, or has one twice.
    """
    begin, end = f"<!-- {kind}: made by `make {made_by}` -->\n", f"<!-- /{kind} -->\n"
    path = ROOT / page
    found = path.read_text(encoding="utf-8")
    before, rest = found.split(begin)
    _, after = rest.split(end)
    fresh = before + begin + part + end + after
    if not check:
        path.write_text(fresh, encoding="utf-8")
        return True
    if found != fresh:
        print(f"{page} does not follow benchmarks/results.json: run make docs-measured", file=sys.stderr)
    return found == fresh
