"""Every causal language model of the installed transformers: the table is whole, and what it says of some holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.zoo.measure import measure
from scripts.zoo.table import TOLERANCE, problems, read_rows, row

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
QUICK = ("qwen3", "mamba", "gpt_oss", "opt", "lfm2")
"""Dense, a state space, transposed experts with biases, flattened inputs, convolutions."""


def test_the_table_has_every_type_of_the_installed_transformers_and_no_wrong_gradient() -> None:
    assert problems(PAGE) == []


@pytest.mark.parametrize("kind", QUICK)
def test_an_architecture_is_what_the_table_says(kind: str) -> None:
    finding = measure(kind, half=False)
    assert not finding.built
    assert not finding.refused
    assert max(finding.errors.values()) <= TOLERANCE
    cells = [cell.strip() for cell in read_rows(PAGE)[kind].split("|")]
    again = [cell.strip() for cell in row(finding).split("|")]
    assert cells[6] == again[6], "what is left out"
    assert [bool(cell) for cell in cells[2:6]] == [bool(cell) for cell in again[2:6]]


def test_a_model_that_sees_what_follows_is_refused_with_a_reason() -> None:
    finding = measure("bert", ("lora",), half=False)
    assert "padding changes a sample in BertLMHeadModel" in finding.refused["lora"]


def test_a_table_that_lacks_a_type_or_holds_a_wrong_gradient_does_not_pass(tmp_path: Path) -> None:
    page = tmp_path / "models.md"
    page.write_text(PAGE.read_text().replace("| `llama` | ", "| `llama` | **3e-01** | "))
    assert problems(page) == ["llama: differs from autograd by **3e-01**"]
    page.write_text("".join(line for line in PAGE.read_text().splitlines(keepends=True) if "| `llama` |" not in line))
    assert problems(page) == ["llama: has no row, run python -m scripts.zoo llama"]
