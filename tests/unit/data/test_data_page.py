"""docs/data.md names every reason and every code that the code gives."""

from __future__ import annotations

import re
from pathlib import Path

from workers.data.rejection import Reason

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "data.md").read_text()


def test_every_reason_is_explained() -> None:
    assert [reason for reason in Reason if f"| `{reason}` |" not in PAGE] == []


def test_every_code_is_explained() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "workers" / "data").glob("*.py"))
    codes = set(re.findall(r'DatasetError\(\s*"(\w+)"', sources))
    assert len(codes) > 20
    assert [code for code in sorted(codes) if f"`{code}`" not in PAGE] == []
