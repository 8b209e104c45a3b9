"""Reads the Python of the documentation as mypy --strict does: what a reader copies has the types that it claims."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "build" / "snippets"
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
WRONG = """\
client.jobs.submit({"dataset": {"url": "s3://a"}, "model": {"uri": "m"}, "selection": {"budget": {}}})
client.jobs.submit(dataset={"url": "s3://a"})
"""
"""Lines that have no field `url` and must be found: without their errors the check would find nothing at all."""


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


def main() -> int:
    """Write the snippets into build/snippets and check them; 1 where mypy finds an error, or misses the wrong lines."""
    BUILT.mkdir(parents=True, exist_ok=True)
    for old in BUILT.glob("*.py"):
        old.unlink()
    for name, code in {**snippets(), "wrong_lines": WRONG}.items():
        (BUILT / f"{name}.py").write_text(GIVEN + code, encoding="utf-8")
    files = sorted(path.relative_to(ROOT).as_posix() for path in BUILT.glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--strict", *files]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)  # noqa: S603 - our own
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    expected = [line for line in errors if line.startswith("build/snippets/wrong_lines.py")]
    sound = done.returncode == 1 and len(expected) == len(WRONG.splitlines()) and expected == errors
    if not sound:
        sys.stderr.write(done.stdout + done.stderr)
        sys.stderr.write("mypy has to find the errors of build/snippets/wrong_lines.py, one a line, and no other.\n")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
