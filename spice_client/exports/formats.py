"""What each trainer takes: the rows in its shape, and the entry of its configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from spice_client.exports.conversation import alternates, is_single_turn, to_messages
from spice_client.exports.files import write_json, write_jsonl, write_npy, write_text
from spice_client.problems import SpiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from spice_client.exports.conversation import Message

ExportFormat = Literal["trl", "llama-factory", "axolotl", "indices"]
FORMATS: tuple[str, ...] = get_args(ExportFormat)
OPENAI_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
    "observation_tag": "tool",
}


class RegistryNotReadable(SpiceError):
    """The `dataset_info.json` that is there already is none."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__({"title": "The entry cannot be added", "detail": f"{path}: {why}; move it away or mend it"})


@dataclass(frozen=True, slots=True)
class Written:
    """The files of an export, and what is worth knowing about them."""

    files: list[Path]
    notes: list[str]


def write_trl(directory: Path, name: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Written:
    """For TRL's SFTTrainer: prompt and completion as messages, on which it computes the loss of the completion alone.

    Conversations with several responses go as `messages`.
    """
    conversations = [to_messages(row, columns) for row in rows]
    path = directory / f"{name}.jsonl"
    if all(map(is_single_turn, conversations)):
        write_jsonl(path, ({"prompt": messages[:-1], "completion": messages[-1:]} for messages in conversations))
        return Written([path], [])
    write_jsonl(path, ({"messages": messages} for messages in conversations))
    note = "the conversations have several responses: train with SFTConfig(assistant_only_loss=True)"
    return Written([path], [note])


def write_llama_factory(
    directory: Path, name: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]
) -> Written:
    """For LLaMA-Factory: the data, and its entry in `dataset_info.json`; other entries there stay."""
    path, registry = directory / f"{name}.json", directory / "dataset_info.json"
    notes: list[str] = []
    entry: dict[str, Any]
    if "messages" in columns:
        conversations = [to_messages(row, columns) for row in rows]
        skipped = sum(not alternates(messages) for messages in conversations)
        if skipped:
            notes.append(f"{skipped} of {len(rows)} conversations do not alternate: LLaMA-Factory skips them")
        data: list[Any] = [{"messages": messages} for messages in conversations]
        entry = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": OPENAI_TAGS}
    else:
        data = [_alpaca(to_messages(row, columns)) for row in rows]
        entry = {"formatting": "alpaca", "columns": {"prompt": "instruction", "query": "input", "response": "output"}}
    known = _registry(registry)
    write_json(path, data)
    write_json(registry, {**known, name: {"file_name": path.name, **entry}})
    return Written([path, registry], notes)


def write_axolotl(directory: Path, name: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Written:
    """For Axolotl: conversations, and the `datasets` of its configuration, which trains on every response."""
    path, config = directory / f"{name}.jsonl", directory / f"{name}.axolotl.yml"
    write_jsonl(path, ({"messages": to_messages(row, columns)} for row in rows))
    quoted = json.dumps(str(path.resolve()), ensure_ascii=False)  # a JSON string is a YAML one
    write_text(
        config,
        "datasets:\n"
        f"  - path: {quoted}\n"
        "    ds_type: json\n"
        "    type: chat_template\n"
        "    field_messages: messages\n"
        "    message_property_mappings:\n"
        "      role: role\n"
        "      content: content\n"
        '    roles_to_train: ["assistant"]\n'
        "    train_on_eos: turn\n",
    )
    return Written([path, config], [])


def write_indices(directory: Path, name: str, indices: Sequence[int]) -> Written:
    """For `datasets.Dataset.select`: row numbers from 0 in the order of picking, as JSON and as NumPy's int64."""
    as_json, as_npy = directory / f"{name}.json", directory / f"{name}.npy"
    write_json(as_json, list(indices))
    write_npy(as_npy, indices)
    return Written([as_json, as_npy], [])


ROW_WRITERS: dict[str, Callable[[Path, str, Sequence[Mapping[str, Any]], Mapping[str, str]], Written]] = {
    "trl": write_trl,
    "llama-factory": write_llama_factory,
    "axolotl": write_axolotl,
}


def _alpaca(messages: Sequence[Message]) -> dict[str, str]:
    """The prompt as it was scored: LLaMA-Factory would join instruction and input in its own way."""
    return {"instruction": messages[0]["content"], "input": "", "output": messages[1]["content"]}


def _registry(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RegistryNotReadable(path, f"is not JSON ({error})") from None
    if not isinstance(known, dict):
        raise RegistryNotReadable(path, "holds no object")
    return known
