"""What each trainer takes: the rows in its shape, and the entry of its configuration."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from spice_client.exports.conversation import (
    alternates,
    is_simple,
    is_single_reply,
    learns_every_reply,
    plain_turn,
    with_thoughts,
)
from spice_client.exports.files import write_json, write_jsonl, write_npy, write_text
from spice_client.problems import SpiceError
from spice_rows.conversation import REASONING_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from spice_rows.conversation import Conversation, Turn

ExportFormat = Literal["trl", "llama-factory", "axolotl", "indices"]
FORMATS: tuple[str, ...] = get_args(ExportFormat)
SUFFIXES: dict[ExportFormat, tuple[str, ...]] = {
    "trl": (".jsonl",),
    "llama-factory": (".json",),
    "axolotl": (".jsonl", ".axolotl.yml"),
    "indices": (".json", ".npy"),
}
"""Of the files that an export makes; LLaMA-Factory's registry is added to, and not replaced."""
SHAREGPT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
    "observation_tag": "observation",
    "function_tag": "function_call",
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


def write_trl(directory: Path, name: str, rows: Sequence[Conversation]) -> Written:
    """For TRL: what each of its trainers takes, with everything that a row says.

    Rows whose last reply alone is learned go as prompt and completion, on which SFTTrainer computes the loss of the
    completion; conversations as messages; pairs as prompt, chosen and rejected for DPOTrainer; plain text as text.
    """
    path = directory / f"{name}.jsonl"
    notes: list[str] = []
    if any(row.text is not None for row in rows):
        write_jsonl(path, ({"text": row.text} for row in rows))
    elif any(row.rejected is not None for row in rows):
        write_jsonl(path, (_pair(row) for row in rows))
        notes.append("the rows are pairs: train with DPOTrainer")
    elif all(map(is_single_reply, rows)):
        write_jsonl(
            path, ({"prompt": _turns(row)[:-1], "completion": _turns(row)[-1:], **_beside(row)} for row in rows)
        )
    else:
        write_jsonl(path, ({"messages": _turns(row), **_beside(row)} for row in rows))
        notes.append("the conversations have several responses: train with SFTConfig(assistant_only_loss=True)")
        lost = sum(not learns_every_reply(row) for row in rows)
        if lost:
            notes.append(f"in {lost} of {len(rows)} conversations some replies carry no loss here: TRL learns them too")
    return Written([path], [*notes, *_thought_notes(rows)])


def write_llama_factory(directory: Path, name: str, rows: Sequence[Conversation]) -> Written:
    """For LLaMA-Factory: the data, and its entry in `dataset_info.json`; other entries there stay."""
    path, registry = directory / f"{name}.json", directory / "dataset_info.json"
    notes: list[str] = []
    data: list[Any]
    entry: dict[str, Any]
    if any(row.text is not None for row in rows):
        data = [{"text": row.text} for row in rows]
        entry = {"columns": {"prompt": "text"}}
        notes.append("the rows are plain text: train with stage pt")
    elif all(row.rejected is None and is_simple(row) for row in rows):
        data = [_alpaca(row) for row in rows]
        entry = {
            "formatting": "alpaca",
            "columns": {"prompt": "instruction", "query": "input", "response": "output", "system": "system"},
        }
    else:
        data = [_sharegpt(row) for row in rows]
        columns = {"messages": "conversations", "system": "system", "tools": "tools"}
        entry = {"formatting": "sharegpt", "columns": columns, "tags": SHAREGPT_TAGS}
        if any(row.rejected is not None for row in rows):
            entry["ranking"] = True
            entry["columns"] = {**columns, "chosen": "chosen", "rejected": "rejected"}
        skipped = sum(not alternates(row.messages) for row in rows)
        if skipped:
            notes.append(f"{skipped} of {len(rows)} conversations do not alternate: LLaMA-Factory skips them")
        notes += _flag_notes(rows, "LLaMA-Factory learns every reply, or with mask_history the last")
        notes += _shortened_notes(rows, "LLaMA-Factory")
    notes += _missing_notes(rows, "LLaMA-Factory", _not_in_sharegpt)
    known = _registry(registry)
    write_json(path, data)
    write_json(registry, {**known, name: {"file_name": path.name, **entry}})
    return Written([path, registry], notes)


def write_axolotl(directory: Path, name: str, rows: Sequence[Conversation]) -> Written:
    """For Axolotl: conversations, and the `datasets` of its configuration, which trains on what the job learned."""
    path, config = directory / f"{name}.jsonl", directory / f"{name}.axolotl.yml"
    quoted = json.dumps(str(path.resolve()), ensure_ascii=False)  # a JSON string is a YAML one
    if any(row.text is not None for row in rows):
        write_jsonl(path, ({"text": row.text} for row in rows))
        write_text(config, f"datasets:\n  - path: {quoted}\n    ds_type: json\n    type: completion\n    field: text\n")
        return Written([path, config], [])
    if any(row.rejected is not None for row in rows):
        write_jsonl(path, (_preference(row) for row in rows))
        write_text(
            config,
            f"rl: dpo\ndatasets:\n  - path: {quoted}\n    ds_type: json\n    split: train\n"
            "    type: chat_template.default\n"
            "    field_messages: messages\n    field_chosen: chosen\n    field_rejected: rejected\n",
        )
        notes = [*_shortened_notes(rows, "Axolotl"), *_missing_notes(rows, "Axolotl", _beside), *_thought_notes(rows)]
        return Written([path, config], notes)
    write_jsonl(path, ({"messages": _flagged(row), **_beside(row)} for row in rows))
    write_text(
        config,
        "datasets:\n"
        f"  - path: {quoted}\n"
        "    ds_type: json\n"
        "    type: chat_template\n"
        "    field_messages: messages\n"
        "    field_tools: tools\n"
        "    message_property_mappings:\n"
        "      role: role\n"
        "      content: content\n"
        "    message_field_training: train\n"
        '    roles_to_train: ["assistant"]\n'
        "    train_on_eos: turn\n",
    )
    notes = _missing_notes(rows, "Axolotl", lambda row: _beside(row).keys() - {"tools"})
    return Written([path, config], [*notes, *_thought_notes(rows)])


def _turns(row: Conversation) -> list[Turn]:
    return [plain_turn(turn) for turn in row.messages]


def _flagged(row: Conversation) -> list[Turn]:
    """The turns, with a flag on those whose reply carries no loss."""
    return [
        {**plain_turn(turn), "train": False} if turn["role"] == "assistant" and not learned else plain_turn(turn)
        for turn, learned in zip(row.messages, row.learned, strict=True)
    ]


def _beside(row: Conversation) -> dict[str, Any]:
    """What stands beside the turns."""
    found = {"tools": row.tools, "chat_template_kwargs": row.kwargs}
    return {name: value for name, value in found.items() if value}


def _pair(row: Conversation) -> dict[str, Any]:
    prompt, chosen, rejected = _sides(row)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **_beside(row)}


def _preference(row: Conversation) -> dict[str, Any]:
    prompt, chosen, rejected = _sides(row)
    return {"messages": prompt, "chosen": chosen[-1], "rejected": rejected[-1]}


def _sides(row: Conversation) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """The turns that both sides of a pair begin with, and what each goes on with."""
    chosen, rejected = _turns(row), _turns(row.rejected or row)
    common = row.learned.index(True)
    return chosen[:common], chosen[common:], rejected[common:]


def _missing_notes(
    rows: Sequence[Conversation], trainer: str, lacks: Callable[[Conversation], Iterable[str]]
) -> list[str]:
    """What rows say and a trainer has no place for, with the number of rows."""
    counts = Counter(name for row in rows for name in lacks(row))
    return [f"{trainer} does not read {name}, which {counts[name]} of {len(rows)} rows have" for name in sorted(counts)]


def _thought_notes(rows: Sequence[Conversation]) -> list[str]:
    """Where rows keep their thoughts: the service gives a template the name that it reads, and a trainer does not."""
    counts = Counter(
        name for row in rows for name in REASONING_FIELDS if any(turn.get(name) for turn in _all_turns(row))
    )
    return [
        f"{counts[name]} of {len(rows)} rows have their thoughts in {name}: rename it where your chat template reads "
        f"{' or '.join(other for other in REASONING_FIELDS if other != name)}"
        for name in sorted(counts)
    ]


def _all_turns(row: Conversation) -> list[Turn]:
    return [*row.messages, *(row.rejected.messages if row.rejected else ())]


def _not_in_sharegpt(row: Conversation) -> set[str]:
    """What the turns of LLaMA-Factory do not hold, or not beside calls of tools."""
    missing = {"chat_template_kwargs"} if row.kwargs else set()
    for turn in _all_turns(row):
        missing |= turn.keys() - {"role", "content", "tool_calls", "tool_call_id", *REASONING_FIELDS}
        if turn.get("tool_calls") and with_thoughts(turn):
            missing.add("what is said or thought beside calls of tools")
    return missing


def _shortened_notes(rows: Sequence[Conversation], trainer: str) -> list[str]:
    """Pairs of which a trainer takes one turn a side."""
    longer = sum(any(len(side) > 1 for side in _sides(row)[1:]) for row in rows if row.rejected is not None)
    return [f"in {longer} of {len(rows)} pairs a side has several turns: {trainer} takes its last"] if longer else []


def _flag_notes(rows: Sequence[Conversation], what: str) -> list[str]:
    lost = sum(not learns_every_reply(row) for row in rows)
    return [f"in {lost} of {len(rows)} conversations some replies carry no loss here: {what}"] if lost else []


def write_indices(directory: Path, name: str, indices: Sequence[int]) -> Written:
    """For `datasets.Dataset.select`: row numbers from 0 in the order of picking, as JSON and as NumPy's int64."""
    as_json, as_npy = directory / f"{name}.json", directory / f"{name}.npy"
    write_json(as_json, list(indices))
    write_npy(as_npy, indices)
    return Written([as_json, as_npy], [])


ROW_WRITERS: dict[str, Callable[[Path, str, Sequence[Conversation]], Written]] = {
    "trl": write_trl,
    "llama-factory": write_llama_factory,
    "axolotl": write_axolotl,
}


def _alpaca(row: Conversation) -> dict[str, str]:
    """The prompt as it was scored: LLaMA-Factory would join instruction and input in its own way."""
    *system, prompt, response = (turn["content"] for turn in row.messages)
    return {"instruction": prompt, "input": "", "output": response, "system": "".join(system)}


def _sharegpt(row: Conversation) -> dict[str, Any]:
    """Turns as LLaMA-Factory has them: calls of tools as turns of their own, thoughts in the text."""
    turns = _turns(row)
    system = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else ""
    found: dict[str, Any] = {"system": system, "tools": json.dumps(row.tools, ensure_ascii=False) if row.tools else ""}
    if row.rejected is not None:
        prompt, chosen, rejected = _sides(row)
        turns = prompt[1:] if system else prompt
        found |= {"chosen": _said(chosen[-1]), "rejected": _said(rejected[-1])}
    return {"conversations": [_said(turn) for turn in turns], **found}


def _said(turn: Turn) -> dict[str, str]:
    calls = [call.get("function", call) for call in turn.get("tool_calls", ())]
    if calls:
        called = [{"name": call.get("name"), "arguments": _arguments(call.get("arguments"))} for call in calls]
        return {
            "from": "function_call",
            "value": json.dumps(called[0] if len(called) == 1 else called, ensure_ascii=False),
        }
    names = {"user": "human", "assistant": "gpt", "tool": "observation", "system": "system"}
    content = turn.get("content")
    text = (
        with_thoughts(turn) if isinstance(content, str) or content is None else json.dumps(content, ensure_ascii=False)
    )
    return {"from": names[turn["role"]], "value": text}


def _arguments(given: Any) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return given


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
