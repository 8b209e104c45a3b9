"""scripts/venv.sh with a Python that only writes down what it is asked to do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "venv.sh"

STUB = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in
    *version_info*) exit {too_old} ;;
    *ensurepip*) exit {no_venv} ;;
    --version) echo Python 3.11.0 ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip install "*) [ ! -e "$CALLS.fail" ] ;;
esac
"""


class Machine:
    """A directory with an empty project in it, and a PATH with stubs."""

    def __init__(self, root: Path) -> None:
        self.project = root / "a project"
        self.project.mkdir()
        self.programs = root / "bin"
        self.programs.mkdir()
        self.calls = root / "calls"

    def add_python(self, name: str, *, too_old: bool = False, no_venv: bool = False) -> Path:
        stub = self.programs / name
        stub.write_text(STUB.format(too_old=int(too_old), no_venv=int(no_venv)))
        stub.chmod(0o755)
        return stub

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        return subprocess.run(
            ["/bin/sh", SCRIPT],
            cwd=self.project,
            env={"PATH": f"{self.programs}:/usr/bin:/bin", "CALLS": str(self.calls), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def makings(self) -> int:
        return self.calls.read_text().count("-m venv")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Every name that the script tries is a stub, too old until a test puts another in its place."""
    machine = Machine(tmp_path)
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python3.14", "python"):
        machine.add_python(name, too_old=True)
    return machine


def test_a_whole_environment_is_brought_up_to_date_and_not_made_anew(machine: Machine) -> None:
    machine.add_python("python3")
    assert machine.run().returncode == 0
    assert machine.makings() == 1
    assert machine.run().returncode == 0
    assert machine.makings() == 0
    assert machine.calls.read_text().count("-m pip install") == 2


def test_a_half_made_environment_is_made_anew(machine: Machine) -> None:
    machine.add_python("python3")
    fail = Path(f"{machine.calls}.fail")
    fail.touch()
    assert machine.run().returncode != 0
    (machine.project / ".venv" / "left over").touch()
    fail.unlink()
    assert machine.run().returncode == 0
    assert machine.makings() == 1
    assert not (machine.project / ".venv" / "left over").exists()


def test_the_first_python_that_fits_is_taken(machine: Machine) -> None:
    machine.add_python("python3.12")
    machine.add_python("python3.14")
    assert machine.run().returncode == 0
    assert "python3.12 -m venv" in machine.calls.read_text()


def test_python_can_be_named(machine: Machine) -> None:
    named = machine.add_python("my python")
    machine.add_python("python3")
    assert machine.run(PYTHON=str(named)).returncode == 0
    assert "my python -m venv" in machine.calls.read_text()


def test_a_named_python_that_is_too_old_is_refused(machine: Machine) -> None:
    machine.add_python("python3.12")
    done = machine.run(PYTHON="python3")
    assert done.returncode != 0
    assert "PYTHON=python3 is not a Python 3.11" in done.stderr
    assert not (machine.project / ".venv").exists()


def test_no_python_is_said_with_what_to_do(machine: Machine) -> None:
    done = machine.run()
    assert done.returncode != 0
    assert "No Python 3.11 or newer was found" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_a_python_without_venv_is_said_with_what_to_do(machine: Machine) -> None:
    machine.add_python("python3", no_venv=True)
    done = machine.run()
    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr
