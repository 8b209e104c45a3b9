"""The wheel, in an environment that holds the base dependencies and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]
PACKAGED = ("app", "migrations", "spice_client", "spice_rows", "workers", "pyproject.toml", "README.md", "LICENSE")
DISTRIBUTION = "spice-select"


def base_dependencies() -> set[str]:
    """The distributions that `pip install spice-select` brings, by the metadata of what is installed here."""
    found: set[str] = set()
    open_requirements = [(DISTRIBUTION, set[str]())]
    while open_requirements:
        name, extras = open_requirements.pop()
        for line in distribution(name).requires or []:
            wanted = Requirement(line)
            applies = wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras | {""})
            if applies and wanted.name not in found:
                found.add(wanted.name)
                open_requirements.append((wanted.name, wanted.extras))
    return found


def link_distribution(name: str, site: Path) -> None:
    """Make an installed distribution importable from another environment."""
    for file in distribution(name).files or []:
        top = file.parts[0]
        if top not in ("..", "__pycache__") and not (site / top).exists():
            (site / top).symlink_to(Path(str(distribution(name).locate_file(top))))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves files beside the sources."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), "."]
    subprocess.run([sys.executable, *build], cwd=source, check=True)
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of a virtual environment with the wheel and its base dependencies."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    for name in base_dependencies():
        link_distribution(name, site)
    install = ["install", "--quiet", "--no-index", "--no-deps", "--no-compile", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(place), *install], check=True)
    return place / "bin"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPICE_", "PYTHON"))}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=kept, cwd="/")


def test_the_base_dependencies_bring_no_torch_and_no_server() -> None:
    heavy = {"torch", "transformers", "numpy", "fastapi", "sqlalchemy", "redis", "rq", "pyarrow", "uvicorn"}
    assert base_dependencies().isdisjoint(heavy)


def test_the_client_imports_where_nothing_else_is_installed(environment: Path) -> None:
    code = (
        "import importlib.util, spice_client\n"
        "print([name for name in ('torch', 'fastapi', 'numpy') if importlib.util.find_spec(name)])"
    )
    done = run(environment / "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_command_line_starts_and_names_what_it_cannot_do(environment: Path) -> None:
    done = run(environment / "spice", "--help")
    assert done.returncode == 0, done.stderr
    for command in ("submit", "watch", "download", "serve"):
        assert command in done.stdout
    done = run(environment / "spice", "list", "--url", "http://127.0.0.1:1")
    assert done.returncode == 3, done.stderr
    assert "The service cannot be reached" in done.stderr


@pytest.mark.parametrize(("command", "extra"), [("serve", "local"), ("api", "server"), ("worker", "worker")])
def test_a_command_without_its_extra_names_it(environment: Path, command: str, extra: str) -> None:
    done = run(environment / "spice", command)
    assert done.returncode == 2
    assert f"pip install '.[{extra}]' in the repository" in done.stderr
    assert "Traceback" not in done.stderr


def test_types_come_with_the_wheel(environment: Path) -> None:
    assert list(environment.parent.glob("lib/python*/site-packages/spice_client/py.typed"))
