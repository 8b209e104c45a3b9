"""Where modules lie, and what the service must not load. Who may import whom, `make lint` holds (import-linter)."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("package", ["app", "workers"])
def test_no_module_lies_loose_at_a_root_but_main(package: str) -> None:
    assert {file.name for file in (ROOT / package).glob("*.py")} == {"__init__.py", "main.py"}


def test_the_arrow_of_the_workers_names_every_room_of_the_service() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (arrow,) = (contract for contract in contracts if contract["name"] == "Of app, workers import app.core alone")
    places = {file.parent.name for file in (ROOT / "app").glob("*/__init__.py")} | {"main"}
    assert set(arrow["forbidden_modules"]) == {f"app.{place}" for place in places - {"core"}} | {"spice_client"}


def test_every_repository_is_held_to_its_feature() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = {module for contract in contracts for module in contract.get("protected_modules", ())}
    repositories = {f"app.{file.parent.name}.repository" for file in (ROOT / "app").glob("*/repository.py")}
    assert repositories
    assert repositories <= held


def test_the_service_never_loads_torch() -> None:
    code = (
        "import sys, app.main, app.cli; app.main.create_app()\n"
        "print([name for name in ('torch', 'transformers', 'workers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
