"""What columns and texts say of rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from app.core.settings import Settings
from app.core.uris.datasets import check_uri
from workers.data.conversation import EVERY_REPLY
from workers.data.conversation import Wanted as Learned
from workers.data.errors import DatasetError
from workers.data.fetch import fetch
from workers.data.row_marks import NO_SOURCE, RowMarks, Wanted, read_marks
from workers.data.shapes import recognise
from workers.stages.limits import same_texts

if TYPE_CHECKING:
    from pathlib import Path

    from spice_rows.conversation import Preference


def marks_of(
    directory: Path,
    lines: list[str],
    wanted: Wanted,
    learned: Learned = EVERY_REPLY,
    columns: tuple[str, ...] = ("prompt", "response"),
) -> RowMarks:
    path = directory / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    settings = Settings(allowed_roots=(str(directory),), cache_path=directory / "cache")
    snapshot = fetch(check_uri(path.as_uri(), settings), settings, should_stop=lambda: False)
    return read_marks(snapshot, recognise(columns), learned, settings, wanted, lambda: False)


def row(prompt: str, response: str = "yes", **more: object) -> str:
    return json.dumps({"prompt": prompt, "response": response, **more})


def test_sources_marks_and_texts_are_told_by_row_number(tmp_path: Path) -> None:
    lines = [
        row("One", at="a", keep=True, bad="No"),
        row("two", at=7, keep=0, bad=" YES "),
        "{not json",
        row(" one ", at="a", keep=1.0),
        row("Two", response="yes ", keep=None, bad=""),
    ]
    found = marks_of(tmp_path, lines, Wanted(source="at", include="keep", exclude="bad", texts=True))
    assert found.names == ("a", "7")
    assert found.source.tolist() == [0, 1, NO_SOURCE, 0, NO_SOURCE]
    assert found.include.tolist() == [0, 3]
    assert found.exclude.tolist() == [1]
    assert found.text.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("preference", "same"), [("chosen", [0, 0, 2, 0]), ("rejected", [0, 1, 0, 0]), ("dpo", [0, 1, 2, 0])]
)
def test_texts_of_pairs_are_equal_if_what_is_learned_of_them_is(
    tmp_path: Path, preference: Preference, same: list[int]
) -> None:
    sides = [("yes", "no"), ("yes", "never"), ("sure", "no"), ("Yes", " no")]
    lines = [json.dumps({"prompt": "Is it?", "chosen": one, "rejected": other}) for one, other in sides]
    columns = ("prompt", "chosen", "rejected")
    found = marks_of(tmp_path, lines, Wanted(texts=True), Learned(preference=preference), columns)
    assert found.text.tolist() == same


def test_texts_of_rows_that_are_not_desired_are_told_where_these_are_learned(tmp_path: Path) -> None:
    lines = [row("One", label=False), row("two", label=False), row(" one", label=False)]
    columns = ("prompt", "response", "label")
    assert marks_of(tmp_path, lines, Wanted(texts=True), Learned(preference="rejected"), columns).text.tolist() == [
        0,
        1,
        0,
    ]


def test_what_is_not_asked_for_is_empty(tmp_path: Path) -> None:
    found = marks_of(tmp_path, [row("a", keep="perhaps")], Wanted())
    assert (len(found.names), len(found.source), len(found.include), len(found.text)) == (0, 0, 0, 0)


@pytest.mark.parametrize("value", ["perhaps", 2, 0.5, ["true"], {"a": 1}])
def test_a_mark_that_is_none_is_refused_with_its_row(tmp_path: Path, value: object) -> None:
    with pytest.raises(DatasetError, match="row 1 holds"):
        marks_of(tmp_path, [row("a", keep="no"), row("b", keep=value)], Wanted(include="keep"))


def test_of_a_text_the_first_stays_or_what_has_to_be_picked() -> None:
    text = np.array([0, 1, 0, 1, 4, 0])
    rows = np.array([1, 2, 3, 4, 5])  # row 0 may not be picked
    nothing = np.empty(0, dtype=np.int64)
    assert same_texts(text, rows, nothing).tolist() == [False, False, True, False, True]
    assert same_texts(text, rows, np.array([5, 3])).tolist() == [True, True, False, False, False]
