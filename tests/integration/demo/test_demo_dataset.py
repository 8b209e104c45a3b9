from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from demo.dataset import MAX_ROW_BYTES, TooFewRowsError, choose, write_dataset
from demo.examples import ExamplesMissingError, example_rows
from demo.functions import function_rows
from demo.rows import Row, shuffled

if TYPE_CHECKING:
    from pathlib import Path


def rows_of(source: str, count: int) -> list[Row]:
    return [Row(source, f"question {number}", "answer") for number in range(count)]


@pytest.fixture(scope="module")
def all_rows() -> list[Row]:
    """Everything that the installed packages hold; reading it takes seconds."""
    return [*function_rows(), *example_rows()]


def test_the_installed_packages_hold_2000_rows_of_at_least_three_domains(all_rows: list[Row]) -> None:
    rows = choose(all_rows, 2000)
    assert len(rows) == 2000
    assert {row.source.split("-")[0] for row in rows} == {"code", "name", "worked", "puzzles", "exam"}
    assert all(row.prompt.strip() and row.response.strip() for row in rows)


def test_the_same_rows_in_any_order_give_the_same_file(
    tmp_path: Path, all_rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data" / "rows.jsonl"
    halves = all_rows[::2], all_rows[1::2]
    monkeypatch.setattr("demo.dataset.function_rows", lambda: halves[1])
    monkeypatch.setattr("demo.dataset.example_rows", lambda: halves[0])
    write_dataset(path, 320)
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [Row(**columns) for columns in written] == choose(all_rows, 320)
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.jsonl"]


def test_more_rows_than_there_are_is_said_with_both_numbers() -> None:
    with pytest.raises(TooFewRowsError, match="31 rows are wanted, but the installed packages hold 30"):
        choose(rows_of("puzzles", 30), 31)


def test_a_missing_package_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.examples.find_spec", lambda _: None)
    with pytest.raises(ExamplesMissingError, match="make demo"):
        list(example_rows())


def test_domains_take_turns_and_a_small_one_is_used_up() -> None:
    chosen = choose(rows_of("puzzles", 2) + rows_of("worked-answers", 50) + rows_of("exam-de", 50), 20)
    assert Counter(row.source for row in chosen) == {"puzzles": 2, "worked-answers": 9, "exam-de": 9}


def test_long_rows_unclean_rows_and_repetitions_are_left_out() -> None:
    good = Row("puzzles", "question", "answer")
    long = Row("puzzles", "q" * MAX_ROW_BYTES, "answer")
    unclean = Row("puzzles", "\x0crac{1}{2}", "answer")
    assert choose([good, good, long, unclean], 1) == [good]
    with pytest.raises(TooFewRowsError):
        choose([good, good, long, unclean], 2)


def test_the_order_of_rows_does_not_hang_on_other_rows() -> None:
    rows = rows_of("puzzles", 30)
    assert [row for row in shuffled(rows) if row != rows[7]] == shuffled(row for row in rows if row != rows[7])
    assert shuffled(rows) == shuffled(reversed(rows))


def test_code_is_asked_for_without_its_docstring(all_rows: list[Row]) -> None:
    coded = [row for row in all_rows if row.source == "code-to-docstring"]
    assert len(coded) > 300
    assert not [row for row in coded if row.response in row.prompt]
    assert all(row.prompt.startswith("Write a docstring for this function.\n\ndef ") for row in coded)
