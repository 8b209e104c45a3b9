from __future__ import annotations

import pytest

from spice_rows.shape import ShapeName
from workers.data.errors import DatasetError
from workers.data.shapes import recognise


@pytest.mark.parametrize(
    ("columns", "shape", "roles"),
    [
        (["prompt", "response"], "prompt_response", {"prompt": "prompt", "response": "response"}),
        (["id", "prompt", "completion"], "prompt_response", {"prompt": "prompt", "response": "completion"}),
        (["question", "answer"], "prompt_response", {"prompt": "question", "response": "answer"}),
        (["Question", "ANSWER"], "prompt_response", {"prompt": "Question", "response": "ANSWER"}),
        (["input", "output"], "prompt_response", {"prompt": "input", "response": "output"}),
        (["query", "response"], "prompt_response", {"prompt": "query", "response": "response"}),
        (["output", "instruction"], "prompt_response", {"prompt": "instruction", "response": "output"}),
        (
            ["instruction", "input", "output", "text"],
            "alpaca",
            {"instruction": "instruction", "input": "input", "output": "output"},
        ),
        (
            ["instruction", "context", "response", "category"],
            "alpaca",
            {"instruction": "instruction", "input": "context", "output": "response"},
        ),
        (["messages"], "messages", {"messages": "messages"}),
        (["prompt", "response", "messages"], "messages", {"messages": "messages"}),
        (["text", "label"], "text", {"text": "text"}),
        (["chosen", "rejected", "prompt"], "preference", {c: c for c in ("chosen", "rejected", "prompt")}),
        (
            ["conversations", "chosen", "rejected", "system"],
            "preference",
            {"chosen": "chosen", "rejected": "rejected", "prompt": "conversations", "system": "system"},
        ),
        (
            ["instruction", "input", "chosen", "rejected"],
            "preference",
            {"chosen": "chosen", "rejected": "rejected", "prompt": "instruction", "input": "input"},
        ),
        (
            ["input", "Question", "chosen", "rejected"],
            "preference",
            {"chosen": "chosen", "rejected": "rejected", "prompt": "Question"},
        ),
        (
            ["prompt", "completion", "label"],
            "prompt_response",
            {"prompt": "prompt", "response": "completion", "label": "label"},
        ),
        (
            ["instruction", "output", "System_Prompt", "history", "tools"],
            "prompt_response",
            {
                "prompt": "instruction",
                "response": "output",
                "system": "System_Prompt",
                "history": "history",
                "tools": "tools",
            },
        ),
        (["messages", "tools", "history"], "messages", {"messages": "messages", "tools": "tools"}),
        (["conversations", "source"], "messages", {"messages": "conversations"}),
    ],
)
def test_known_columns_are_recognised(columns: list[str], shape: str, roles: dict[str, str]) -> None:
    found = recognise(columns)
    assert (found.name, found.columns) == (shape, roles)


@pytest.mark.parametrize("columns", [[], ["prompt"], ["foo", "bar"], [f"c{i}" for i in range(100)]])
def test_unknown_columns_are_refused_with_what_there_is(columns: list[str]) -> None:
    with pytest.raises(DatasetError, match="no prompt and response among the columns") as caught:
        recognise(columns)
    assert caught.value.reason_code == "unrecognised_shape"
    assert len(caught.value.message) < 500


def test_a_mapping_overrides() -> None:
    columns = ["prompt", "response", "a", "b", "c"]
    assert recognise(columns, {"prompt": "a", "response": "b"}).columns == {"prompt": "a", "response": "b"}
    assert recognise(columns, {"messages": "c"}).name is ShapeName.MESSAGES
    assert recognise(columns, {"instruction": "a", "input": "b", "output": "c"}).name is ShapeName.ALPACA
    assert recognise(columns, {"instruction": "a", "output": "c"}).name is ShapeName.ALPACA


def test_the_prompt_of_a_pair_is_recognised_where_its_sides_are_named() -> None:
    named = {"chosen": "better", "rejected": "worse"}
    assert recognise(["better", "worse", "Prompt"], named).columns == {**named, "prompt": "Prompt"}
    odd = {"chosen": "prompt", "rejected": "worse"}
    assert recognise(["question", "worse", "prompt"], odd).columns == {**odd, "prompt": "question"}
    assert recognise(["better", "worse"], named).columns == named


def test_a_mapping_to_a_column_that_is_not_there_names_both() -> None:
    with pytest.raises(
        DatasetError, match=r"no column 'promt', which is to hold the prompt; it has 'prompt', 'response'"
    ) as caught:
        recognise(["prompt", "response"], {"prompt": "promt", "response": "response"})
    assert caught.value.reason_code == "unknown_column"


@pytest.mark.parametrize(
    "mapping", [{"prompt": "a"}, {"prompt": "a", "output": "a"}, {"messages": "a", "prompt": "a"}, {"x": "a"}]
)
def test_a_mapping_of_other_roles_is_refused(mapping: dict[str, str]) -> None:
    with pytest.raises(DatasetError, match="it should map prompt and response, or messages") as caught:
        recognise(["a"], mapping)
    assert caught.value.reason_code == "unknown_role"
