"""The real proof's dataset, its table, and what the README says of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from demo.proof import table, with_mistakes
from scripts.proof_pages import draw, sentence
from spice_client import Proof

if TYPE_CHECKING:
    from pathlib import Path


def test_mistakes_are_responses_of_other_rows(tmp_path: Path) -> None:
    clean = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"p{n}", "response": f"r{n}"} for n in range(50)]
    clean.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dirty = [json.loads(line) for line in with_mistakes(clean, 0.2).read_text().splitlines()]
    assert [row["prompt"] for row in dirty] == [row["prompt"] for row in rows]
    wrong = [n for n, row in enumerate(dirty) if row["response"] != f"r{n}"]
    assert len(wrong) == 10
    assert sorted(dirty[n]["response"] for n in wrong) == sorted(f"r{n}" for n in wrong)


def worse() -> Proof:
    return Proof.model_validate(
        {
            "id": "2f6a0d52-6e83-4e0b-9df2-6f4c1c0a7b11",
            "name": "clean",
            "metadata": {},
            "state": "succeeded",
            "stage": None,
            "progress": None,
            "error": None,
            "created_at": "2026-11-24T03:00:00Z",
            "arms": [
                {"name": "selected", "rows": 9, "tokens": 90, "steps": 3, "mean": {"loss": 1.5}},
                {"name": "random", "rows": 9, "tokens": 80, "steps": 3, "mean": {"loss": 1.25}},
            ],
            "comparisons": [
                {
                    "arm": "selected",
                    "against": "random",
                    "metric": "loss",
                    "difference": 0.25,
                    "interval": [0.125, 0.375],
                    "smallest_effect": 0.01,
                    "verdict": "worse",
                    "seeds": 5,
                }
            ],
        }
    )


def test_the_table_says_what_was_found() -> None:
    assert table({"clean": worse()})[2:] == [
        "| clean | selected | 90 | 1.5000 | +0.2500 | +0.1250 to +0.3750 | worse |",
        "| clean | random | 80 | 1.2500 |  |  |  |",
    ]


def test_the_sentence_and_the_picture_say_what_was_found(tmp_path: Path) -> None:
    both = {"clean": worse(), "20% mistakes": worse()}
    found = "+0.250 on the rows as they are (+0.125 to +0.375: worse) and by +0.250 with 20% of the responses swapped"
    assert found in sentence(both)
    draw(both, tmp_path / "proof.svg")
    first = (tmp_path / "proof.svg").read_bytes()
    draw(both, tmp_path / "proof.svg")
    assert (tmp_path / "proof.svg").read_bytes() == first
