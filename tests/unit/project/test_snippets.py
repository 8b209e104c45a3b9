"""The Python of the documentation, as mypy --strict reads it: what a reader copies has the types that it claims."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("README.md", "docs/*.md", "examples/*.md")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
GIVEN = """\
from pathlib import Path
from typing import Any
from spice_client import JobRequest, SpiceClient
client: SpiceClient
request: JobRequest
dataset: Any
samples: Any
sketches: Any
job_id: str
report_path: Path
secret: str
body: bytes
headers: dict[str, str]
"""
"""What a snippet may take as given by the text around it."""
SETTINGS = """\
[mypy]
strict = True
no_implicit_reexport = False
warn_unused_ignores = False
[mypy-torch.*,transformers.*,safetensors.*,tokenizers.*,numpy.*]
follow_imports = skip
[mypy-standardwebhooks.*,datasets.*,pandas.*,pyarrow.*]
follow_imports = skip
ignore_missing_imports = True
[mypy-workers.*,app.*,spice_client.*,spice_rows.*]
follow_imports = silent
"""


def snippets() -> dict[str, str]:
    """Every Python block by the page and the line that it begins at."""
    found = {}
    for pattern in PAGES:
        for page in sorted(ROOT.glob(pattern)):
            text = page.read_text(encoding="utf-8")
            for block in BLOCK.finditer(text):
                line = text.count("\n", 0, block.start()) + 1
                found[f"{page.stem}_{line}".replace("-", "_").lower()] = block.group(1)
    return found


def test_mypy_finds_nothing_in_any_snippet(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    found = snippets()
    assert len(found) >= 5
    for name, code in found.items():
        (tmp_path / f"{name}.py").write_text(GIVEN + code)
    wrong = 'client.jobs.submit({"dataset": {"url": "s3://a"}, "model": {"uri": "m"}, "selection": {"budget": {}}})\n'
    (tmp_path / "a_wrong_one.py").write_text(GIVEN + wrong + 'client.jobs.submit(dataset={"url": "s3://a"})\n')
    files = sorted(path.name for path in tmp_path.glob("*.py"))
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        "mypy.ini",
        "--cache-dir",
        str(ROOT / ".mypy_cache" / "snippets"),
    ]
    done = subprocess.run(
        [*command, *files],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    of_the_wrong_one = [line for line in errors if line.startswith("a_wrong_one.py")]
    assert len({line.split(":")[1] for line in of_the_wrong_one}) == 2, "`url` is no field, in a request or an argument"
    assert [line for line in errors if line not in of_the_wrong_one] == []
