"""The threat model names tests and settings that exist, and the audit covers what is installed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from app.core.settings import Settings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "security.md").read_text()
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)+)`", PAGE)))
_, _, TABLES = PAGE.partition("## Threats")
TABLES, _, _ = TABLES.partition("## Inputs tried")
THREATS = [
    line.split("|")[1:-1] for line in TABLES.splitlines() if line.startswith("| ") and not line.startswith("| threat |")
]


def test_every_threat_has_a_defence_and_a_test() -> None:
    assert len(THREATS) > 40
    for threat in THREATS:
        what, defence, _, test = (cell.strip() for cell in threat)
        assert what, threat
        assert defence, threat
        assert test.strip("`") in TESTS, threat


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_is_named_exists(name: str) -> None:
    file, *path = name.split("::")
    nodes: list[ast.stmt] = ast.parse((ROOT / file).read_text()).body
    for part in path:
        found = [node for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part]
        assert found, f"{name}: there is no {part}"
        nodes = found[0].body


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"SPICE_([A-Z0-9_]+)", PAGE)) - {"FUZZ_EXAMPLES"}
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_every_file_that_a_command_names_exists() -> None:
    for name in re.findall(r"(?:ARGS=\"?| )(tests/[\w/.]+)", PAGE):
        assert (ROOT / name).exists(), name


def test_the_audit_covers_every_lock() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = "\n".join(step.get("run", "") for step in jobs["audit"]["steps"])
    for text in (commands, PAGE):
        _, _, audit = text.partition("pipx install pip-audit")
        assert "for lock in requirements*.lock; do\n  pip-audit --strict " in audit
        assert '--requirement "$lock"\ndone' in audit
    assert {path.name for path in ROOT.glob("*.lock")} == {path.name for path in ROOT.glob("requirements*.lock")}
