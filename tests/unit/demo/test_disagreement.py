"""The dataset in which rows contradict one another."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

from demo.disagreement import STATEMENTS, main

if TYPE_CHECKING:
    from pathlib import Path


def test_each_statement_has_two_rows_that_want_the_opposite(tmp_path: Path) -> None:
    assert main([str(tmp_path / "new" / "rows.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "new" / "rows.jsonl").read_text().splitlines()]
    by_statement = defaultdict(list)
    for row in rows:
        by_statement[row["prompt"]].append(row)
    assert len(by_statement) == STATEMENTS
    for one, other in by_statement.values():
        assert (one["chosen"], one["rejected"]) == (other["rejected"], other["chosen"])
        assert {one["source"], other["source"]} == {"first reviewer", "second reviewer"}
    first = [row["source"] for row in rows[:STATEMENTS]]
    assert 0 < first.count("first reviewer") < STATEMENTS, "mixed: equal gains go to the row that comes first"
