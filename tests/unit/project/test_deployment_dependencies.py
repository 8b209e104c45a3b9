from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_direct_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    wanted += [
        line
        for line in (ROOT / "requirements-demo.lock").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in wanted} - {"spice-select"}  # extras of ours
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| ([\w, -]+) \|", page, re.MULTILINE)
    reasoned = {name.strip() for cell in first_cells for name in cell.split(",")} - {"package"}
    assert names == reasoned
