"""Exports, read back as the trainers' documentation says that they read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spice_client.exports import formats
from spice_client.exports.conversation import RowNotReadable, alternates, read
from spice_client.exports.files import write_npy
from spice_rows.conversation import Conversation, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROMPT_RESPONSE = {"prompt": "question", "response": "answer"}
ALPACA = {"instruction": "instruction", "input": "input", "output": "output"}
CHAT = {"messages": "conversations"}

SINGLE = [{"question": "What is 1?", "answer": "It is one.", "source": "a"}, {"question": "ü?", "answer": "ö\u2028!"}]
INSTRUCTIONS = [{"instruction": "Add.", "input": "1 and 1", "output": "2"}, {"instruction": "Say hi.", "output": "Hi"}]
TALKS = [
    {
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello"},
            {"from": "human", "value": "Bye"},
            {"from": "gpt", "value": "Bye"},
            {"from": "human", "value": "Still there?"},
        ]
    },
    {"conversations": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, {"from": "bot", "value": "Ho"}]},
]
SHAPES = {"prompt_response": (SINGLE, PROMPT_RESPONSE), "alpaca": (INSTRUCTIONS, ALPACA), "chat": (TALKS, CHAT)}
Shape = tuple[list[dict[str, Any]], dict[str, str]]


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def said(rows: list[dict[str, Any]], columns: dict[str, str], **wanted: Any) -> list[Conversation]:
    return [read(row, columns, Wanted(**wanted)) for row in rows]


def test_trl_takes_prompt_and_completion_or_messages(shape: Shape, tmp_path: Path) -> None:
    rows, columns = shape
    written = formats.write_trl(tmp_path, "train", said(rows, columns))
    import datasets  # noqa: PLC0415 - with pandas, seconds of imports

    (path,) = written.files
    read = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    if columns is CHAT:
        assert read.column_names == ["messages"]
        assert "assistant_only_loss" in written.notes[0]
        assert read[1]["messages"] == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    else:
        assert read.column_names == ["prompt", "completion"]
        assert [row["completion"][0]["role"] for row in read] == ["assistant", "assistant"]
        assert read[0]["prompt"][-1]["role"] == "user"
    assert len(read) == len(rows)


# As in LLaMA-Factory's data/README.md.
ENTRY_KEYS = {"file_name", "formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags"}
COLUMN_KEYS = {
    "alpaca": {"prompt", "query", "response", "system", "history"},
    "sharegpt": {"messages", "system", "tools", "chosen", "rejected"},
}
TAG_KEYS = {f"{one}_tag" for one in ("role", "content", "user", "assistant", "observation", "function", "system")}


def test_llama_factory_finds_the_entry_and_what_it_names(shape: Shape, tmp_path: Path) -> None:
    rows, columns = shape
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "mine.json"}}')
    formats.write_llama_factory(tmp_path, "picked", said(rows, columns))
    registry = json.loads((tmp_path / "dataset_info.json").read_text())
    assert registry["mine"] == {"file_name": "mine.json"}
    entry = registry["picked"]
    assert set(entry) <= ENTRY_KEYS
    assert set(entry["columns"]) <= COLUMN_KEYS[entry["formatting"]]
    data = json.loads((tmp_path / entry["file_name"]).read_text())
    assert len(data) == len(rows)
    for row in data:
        assert set(entry["columns"].values()) == set(row)
    if entry["formatting"] == "alpaca":
        assert all(isinstance(value, str) for row in data for value in row.values())
        assert data[0]["instruction"] == said(rows, columns)[0].messages[0]["content"]
    else:
        tags = entry["tags"]
        assert set(tags) <= TAG_KEYS
        known = {tags[f"{role}_tag"] for role in ("user", "assistant", "system", "observation", "function")}
        for row in data:
            assert {turn[tags["role_tag"]] for turn in row["conversations"]} <= known
            assert all(isinstance(turn[tags["content_tag"]], str) for turn in row["conversations"])


def test_llama_factory_s_skipping_is_said(tmp_path: Path) -> None:
    twice = {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "human", "value": "b"},
            {"from": "gpt", "value": "c"},
        ]
    }
    written = formats.write_llama_factory(tmp_path, "picked", said([*TALKS, twice], CHAT))
    assert written.notes == ["2 of 3 conversations do not alternate: LLaMA-Factory skips them"]
    assert alternates(said(TALKS[1:], CHAT)[0].messages)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_registry_that_is_none_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(formats.RegistryNotReadable, match=r"dataset_info\.json"):
        formats.write_llama_factory(tmp_path, "picked", said(SINGLE, PROMPT_RESPONSE))
    assert [path.name for path in tmp_path.iterdir()] == ["dataset_info.json"]
    assert (tmp_path / "dataset_info.json").read_text() == content


def test_axolotl_finds_its_stanza_and_the_conversations(shape: Shape, tmp_path: Path) -> None:
    rows, columns = shape
    directory = tmp_path / 'a "quoted" directory: ü'
    directory.mkdir()
    path, config = formats.write_axolotl(directory, "train", said(rows, columns)).files
    (dataset,) = yaml.safe_load(config.read_text(encoding="utf-8"))["datasets"]
    # As in Axolotl's docs/dataset-formats/conversation.qmd.
    assert dataset == {
        "path": str(path),
        "ds_type": "json",
        "type": "chat_template",
        "field_messages": "messages",
        "field_tools": "tools",
        "message_property_mappings": {"role": "role", "content": "content"},
        "message_field_training": "train",
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }
    assert [row["messages"] for row in lines(path)] == [one.messages for one in said(rows, columns)]


def test_indices_are_what_a_dataset_selects_by(tmp_path: Path) -> None:
    import datasets  # noqa: PLC0415

    as_json, as_npy = formats.write_indices(tmp_path, "picked", [4, 0, 2]).files
    dataset = datasets.Dataset.from_dict({"x": list("abcde")})
    assert dataset.select(json.loads(as_json.read_text()))["x"][:] == ["e", "a", "c"]
    assert dataset.select(np.load(as_npy))["x"][:] == ["e", "a", "c"]


@given(values=st.lists(st.integers(0, 2**63 - 1), max_size=300))
def test_numpy_reads_what_is_written_without_it(tmp_path_factory: pytest.TempPathFactory, values: list[int]) -> None:
    path = tmp_path_factory.getbasetemp() / "values.npy"
    write_npy(path, values)
    read = np.load(path)
    assert read.dtype == np.int64
    assert read.tolist() == values


TURN = {"role": "user", "content": "a"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
FULL: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "Weather in Oslo?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "12 degrees"},
        {"role": "assistant", "content": "Wrong.", "weight": 0},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "It is 12.", "reasoning_content": "the tool said so"},
    ],
    "tools": json.dumps(TOOLS),
    "system": "Be brief.",
}
FULL_COLUMNS = {"messages": "messages", "tools": "tools", "system": "system"}


def test_all_that_a_row_says_is_in_every_export(tmp_path: Path) -> None:
    rows = said([FULL], FULL_COLUMNS)
    for write in (formats.write_trl, formats.write_llama_factory, formats.write_axolotl):
        written = write(tmp_path, "train", rows)
        content = written.files[0].read_text()
        for text in ("Be brief.", "weather", "Oslo", "12 degrees", "the tool said so", "It is 12."):
            assert text in content, (write, text)
        assert any("carry no loss" in note for note in written.notes) or '"train": false' in content


def test_what_is_written_for_trl_is_read_again_as_the_same(tmp_path: Path) -> None:
    for rows, columns in (
        *SHAPES.values(),
        ([{**FULL, "messages": FULL["messages"][:3] + FULL["messages"][5:]}], FULL_COLUMNS),
    ):
        first = said(rows, columns)
        (path,) = formats.write_trl(tmp_path, "train", first).files
        names = (
            {"prompt": "prompt", "response": "completion"}
            if "completion" in lines(path)[0]
            else {"messages": "messages"}
        )
        again = said(lines(path), {**names, "tools": "tools"})
        for one, other in zip(first, again, strict=True):
            assert [turn["content"] for turn in one.messages] == [turn["content"] for turn in other.messages]
            assert (one.learned, one.tools) == (other.learned, other.tools)


def test_pairs_and_plain_text_go_as_their_trainers_take_them(tmp_path: Path) -> None:
    pair = {"prompt": "2+2?", "chosen": "four", "rejected": "five"}
    columns = {name: name for name in pair}
    pairs = said([pair], columns, preference="dpo")
    assert lines(formats.write_trl(tmp_path, "train", pairs).files[0]) == [
        {
            "prompt": [{"role": "user", "content": "2+2?"}],
            "chosen": [{"role": "assistant", "content": "four"}],
            "rejected": [{"role": "assistant", "content": "five"}],
        }
    ]
    formats.write_llama_factory(tmp_path, "picked", pairs)
    entry = json.loads((tmp_path / "dataset_info.json").read_text())["picked"]
    assert entry["ranking"]
    assert json.loads((tmp_path / "picked.json").read_text())[0]["rejected"] == {"from": "gpt", "value": "five"}
    _, config = formats.write_axolotl(tmp_path, "train", pairs).files
    assert yaml.safe_load(config.read_text())["rl"] == "dpo"
    plain = said([{"text": "once upon a time"}], {"text": "text"})
    assert lines(formats.write_trl(tmp_path, "train", plain).files[0]) == [{"text": "once upon a time"}]


def test_a_row_that_is_not_as_the_columns_say_is_said() -> None:
    with pytest.raises(RowNotReadable, match="missing_value"):
        said([{"question": "a"}], PROMPT_RESPONSE)
    with pytest.raises(RowNotReadable, match="name no prompt"):
        said([{"question": "a"}], {"prompt": "question"})


TURN = {"role": "user", "content": "a"}
CALL = {"type": "function", "function": {"name": "look", "arguments": {}}}
THOUGHTFUL = [
    {"role": "user", "content": "Rain?", "name": "Zed"},
    {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]},
    {"role": "tool", "content": "yes"},
    {"role": "assistant", "content": "It rains."},
]
LONG_PAIR = {
    side: [
        TURN,
        {"role": "assistant", "content": first},
        {"role": "user", "content": "More?"},
        {"role": "assistant", "content": last},
    ]
    for side, first, last in (("chosen", "b", "c"), ("rejected", "d", "e"))
}


@pytest.mark.parametrize(
    ("writer", "row", "notes"),
    [
        (
            formats.write_llama_factory,
            {"messages": THOUGHTFUL, "chat_template_kwargs": {"enable_thinking": False}},
            [
                "LLaMA-Factory does not read chat_template_kwargs, which 1 of 1 rows have",
                "LLaMA-Factory does not read name, which 1 of 1 rows have",
                "LLaMA-Factory does not read what is said or thought beside calls of tools, which 1 of 1 rows have",
            ],
        ),
        (
            formats.write_llama_factory,
            {"messages": [TURN, {"role": "assistant", "content": "b"}], "chat_template_kwargs": {"a": 1}},
            ["LLaMA-Factory does not read chat_template_kwargs, which 1 of 1 rows have"],
        ),
        (
            formats.write_llama_factory,
            LONG_PAIR,
            ["in 1 of 1 pairs a side has several turns: LLaMA-Factory takes its last"],
        ),
        (formats.write_axolotl, LONG_PAIR, ["in 1 of 1 pairs a side has several turns: Axolotl takes its last"]),
        (
            formats.write_axolotl,
            {"prompt": "a", "chosen": "b", "rejected": "c", "tools": [{"name": "look"}]},
            ["Axolotl does not read tools, which 1 of 1 rows have"],
        ),
        (
            formats.write_axolotl,
            {"messages": THOUGHTFUL, "chat_template_kwargs": {"enable_thinking": False}},
            ["Axolotl does not read chat_template_kwargs, which 1 of 1 rows have"],
        ),
        (
            formats.write_trl,
            {"messages": [TURN, {"role": "assistant", "content": "b", "thinking": "c"}]},
            [
                (
                    "1 of 1 rows have their thoughts in thinking: rename it where your chat template reads "
                    "reasoning_content or reasoning"
                )
            ],
        ),
    ],
)
def test_what_a_trainer_has_no_place_for_is_said(
    tmp_path: Path, writer: Callable[..., formats.Written], row: dict[str, Any], notes: list[str]
) -> None:
    columns = {name: name for name in row}
    assert writer(tmp_path, "train", said([row], columns, preference="dpo")).notes == notes
