"""The pages name every type of failure that a job may end with, and every code of a file that cannot be used."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from app.core.lifecycle.deadlines import TIMED_OUT
from app.core.lifecycle.leases import WORKER_LOST
from workers.runtime.failures import KINDS

ROOT = Path(__file__).parents[3]
API_PAGE = (ROOT / "docs" / "api.md").read_text()
DATA_PAGE = (ROOT / "docs" / "data.md").read_text()
JOBS = [kind for _, kind, _, _ in KINDS]


def said(error: str) -> list[str]:
    """The first arguments of all calls of this exception in `workers/`, where they are written out."""
    texts = [file.read_text() for file in sorted((ROOT / "workers").rglob("*.py"))]
    calls = (
        node
        for text in texts
        if f"{error}(" in text  # parsing all files takes a second of each process that collects the tests
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == error and node.args
    )
    first = (call.args[0] for call in calls)
    return sorted({arg.value for arg in first if isinstance(arg, ast.Constant) and isinstance(arg.value, str)})


def codes(page: str, heading: str) -> set[str]:
    """What stands in backquotes in the first two columns of the table below a heading."""
    _, _, after = page.partition(f"## {heading}\n")
    lines = [line for line in after.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return {code for line in lines for code in re.findall(r"`([^`]+)`", "|".join(line.split("|")[1:3]))}


@pytest.mark.parametrize("kind", [*said("JobError"), *JOBS, WORKER_LOST["type"], TIMED_OUT])
def test_a_failed_jobs_type_is_on_the_page(kind: str) -> None:
    assert kind in codes(API_PAGE, "Why a job failed")


@pytest.mark.parametrize("code", said("DatasetError"))
def test_a_code_of_an_unusable_file_is_on_the_page(code: str) -> None:
    assert code in codes(DATA_PAGE, "Files that cannot be used")
