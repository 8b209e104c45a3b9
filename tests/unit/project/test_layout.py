"""The arrows of the design: who may import whom, and what the service must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# A package, and the modules of this repository that it may import besides its own.
ARROWS = {
    "app/core": set[str](),
    "app": {"spice_client"},
    "spice_client": set[str](),
    "workers/selection": set[str](),
    "workers/data": {"app.core"},
    "workers/models": {"app.core", "workers.data"},
    "workers/gradients": {"app.core", "workers.data", "workers.models", "workers.selection.seeds"},
    "workers/statistics": {"app.core", "workers.data", "workers.selection"},
    "workers/training": {"app.core", "workers.data", "workers.gradients", "workers.models", "workers.selection.seeds"},
    "workers": {"app.core"},
}
REPOSITORY = {"app", "benchmarks", "demo", "migrations", "spice_client", "workers"}


def imports(file: Path) -> set[str]:
    """The modules of this repository that a file imports, type-checking imports included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
    return {name for name in found if name.split(".")[0] in REPOSITORY}


def inside(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("package", sorted(ARROWS))
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    allowed = ARROWS[package] | {package.replace("/", ".")}
    for file in files:
        outside = {name for name in imports(file) if not inside(name, allowed)}
        assert not outside, f"{file.relative_to(ROOT)} imports {outside}"


def test_the_service_never_loads_torch() -> None:
    code = (
        "import sys, app.main, app.cli; app.main.create_app()\n"
        "print([name for name in ('torch', 'transformers', 'workers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_the_command_line_of_the_service_knows_the_client() -> None:
    for file in sorted((ROOT / "app").rglob("*.py")):
        used = {name for name in imports(file) if inside(name, {"spice_client"})}
        assert not used or file.parent.name == "cli", f"{file.relative_to(ROOT)} imports {used}"


def test_routers_are_known_to_the_application_alone() -> None:
    for file in sorted((ROOT / "app").rglob("*.py")):
        routers = {name for name in imports(file) if name.endswith(".router")}
        assert not routers or file.name == "main.py", f"{file.relative_to(ROOT)} imports {routers}"


def test_one_place_knows_rq_on_the_services_side() -> None:
    for file in sorted((ROOT / "app").rglob("*.py")):
        names = {
            (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom)
        }
        assert "rq" not in names or file.name == "queue.py", file
