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
from spice_client.exports.conversation import alternates, to_messages
from spice_client.exports.files import write_npy
from workers.data.conversation import to_conversation as as_the_worker_reads
from workers.data.rejection import Reason
from workers.data.shapes import recognise

if TYPE_CHECKING:
    from collections.abc import Mapping
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


def agrees_with_the_worker(row: Mapping[str, Any], columns: dict[str, str]) -> None:
    theirs = as_the_worker_reads(row, recognise(sorted(set(row) | set(columns.values())), columns))
    if not isinstance(theirs, Reason):  # what it rejects is never picked
        ours = [turn["content"] for turn in to_messages(row, columns)]
        assert ours == [turn["content"] for turn in theirs.messages][: len(ours)]


def test_rows_are_read_as_the_worker_read_them(shape: Shape) -> None:
    rows, columns = shape
    for row in rows:
        agrees_with_the_worker(row, columns)


texts = st.text(max_size=5)
contents = texts | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), max_size=2)
roles = st.sampled_from(["system", "User", "human", "assistant", "gpt", "model", "tool", "function", "developer", "?"])
turns = st.fixed_dictionaries({"role": roles, "content": contents}) | st.fixed_dictionaries(
    {"from": roles, "value": contents}
)


@given(st.lists(turns, max_size=5))
def test_conversations_are_read_as_the_worker_read_them(talk: list[dict[str, Any]]) -> None:
    agrees_with_the_worker({"conversations": talk}, CHAT)


@given(texts, texts | st.none(), texts)
def test_instructions_are_read_as_the_worker_read_them(instruction: str, given_input: str | None, output: str) -> None:
    agrees_with_the_worker({"instruction": instruction, "input": given_input, "output": output}, ALPACA)


def test_trl_takes_prompt_and_completion_or_messages(shape: Shape, tmp_path: Path) -> None:
    rows, columns = shape
    written = formats.write_trl(tmp_path, "train", rows, columns)
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
    "sharegpt": {"messages", "system", "tools"},
}
TAG_KEYS = {f"{one}_tag" for one in ("role", "content", "user", "assistant", "observation", "function", "system")}


def test_llama_factory_finds_the_entry_and_what_it_names(shape: Shape, tmp_path: Path) -> None:
    rows, columns = shape
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "mine.json"}}')
    formats.write_llama_factory(tmp_path, "picked", rows, columns)
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
        assert data[0]["instruction"] == to_messages(rows[0], columns)[0]["content"]
    else:
        tags = entry["tags"]
        assert set(tags) <= TAG_KEYS
        known = {tags[f"{role}_tag"] for role in ("user", "assistant", "system", "observation")}
        for row in data:
            assert {turn[tags["role_tag"]] for turn in row["messages"]} <= known
            assert all(isinstance(turn[tags["content_tag"]], str) for turn in row["messages"])


def test_llama_factory_s_skipping_is_said(tmp_path: Path) -> None:
    twice = {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "human", "value": "b"},
            {"from": "gpt", "value": "c"},
        ]
    }
    written = formats.write_llama_factory(tmp_path, "picked", [*TALKS, twice], CHAT)
    assert written.notes == ["1 of 3 conversations do not alternate: LLaMA-Factory skips them"]
    assert alternates(to_messages(TALKS[0], CHAT))


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_registry_that_is_none_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(formats.RegistryNotReadable, match=r"dataset_info\.json"):
        formats.write_llama_factory(tmp_path, "picked", SINGLE, PROMPT_RESPONSE)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset_info.json"]
    assert (tmp_path / "dataset_info.json").read_text() == content


def test_axolotl_finds_its_stanza_and_the_conversations(shape: Shape, tmp_path: Path) -> None:
    rows, columns = shape
    directory = tmp_path / 'a "quoted" directory: ü'
    directory.mkdir()
    path, config = formats.write_axolotl(directory, "train", rows, columns).files
    (dataset,) = yaml.safe_load(config.read_text(encoding="utf-8"))["datasets"]
    # As in Axolotl's docs/dataset-formats/conversation.qmd.
    assert dataset == {
        "path": str(path),
        "ds_type": "json",
        "type": "chat_template",
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }
    assert [row["messages"] for row in lines(path)] == [to_messages(row, columns) for row in rows]


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
