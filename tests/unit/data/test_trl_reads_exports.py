"""What TRL's own loader makes of an export: the tokens that it trains on are those that a job scored.

SFTTrainer prepares the file of `write_trl` as it does before training; its labels are compared with our mask, token by
token. What TRL learns besides follows from the rule in docs/data.md: the line end after the end of turn, an empty
thought that the template puts before a reply, and what a template writes once after the last turn, as Phi-3's does.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from spice_client.exports.conversation import read
from spice_client.exports.formats import write_trl
from spice_rows.conversation import Wanted
from workers.data.rejection import Refusal
from workers.data.template_words import BAR, EMPTY_THOUGHT
from workers.data.tokenisation import ConversationEncoder, Encoded

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = files("trl") / "chat_templates"
NAMES = ("qwen2_5", "qwen3", "llama3", "phi3", "glm4moe", "deepseekv3")
"""Of templates that TRL ships twice: as the models have them, and with marks around what the assistant says."""
WITHOUT_CALLS = ("llama3", "phi3")
ENDS = {"qwen2_5": "<|im_end|>", "qwen3": "<|im_end|>", "llama3": "<|eot_id|>"}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Now.", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
CHAT = {"messages": "messages"}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


PAIRED = [{"prompt": "What is 1?", "response": "It is one."}, {"prompt": "And 2?", "response": "  Two!\nYes. "}]
WITH_SYSTEM = [{"prompt": "Hi", "response": "Ahoy.", "system": "Talk like a pirate."}]
TALKS = [
    {"messages": [user("Hi"), assistant("Hello."), user("Bye"), assistant("Bye.")]},
    {"messages": [{"role": "system", "content": "Be brief."}, user("Hi"), assistant("Ho"), user("?"), assistant("!")]},
]
THINKING = [{"messages": [user("2+2?"), assistant("4", reasoning_content="two and two")]}]
THINKING_TALK = [{"messages": [user("2?"), assistant("2"), user("2+2?"), assistant("4", reasoning_content="add them")]}]
CALLING = [
    {
        "messages": [
            user("Rain?"),
            assistant("", tool_calls=[CALL]),
            {"role": "tool", "content": "no"},
            assistant("No."),
        ],
        "tools": [WEATHER],
    }
]
TEXT = [{"text": "All of this is learned."}]
ROWS: dict[str, tuple[list[dict[str, Any]], dict[str, str]]] = {
    "prompt and response": (PAIRED, {"prompt": "prompt", "response": "response"}),
    "a system prompt": (WITH_SYSTEM, {"prompt": "prompt", "response": "response", "system": "system"}),
    "conversations": (TALKS, CHAT),
    "a thought": (THINKING, CHAT),
    "a thought in the last turn": (THINKING_TALK, CHAT),
    "calls of tools": (CALLING, {**CHAT, "tools": "tools"}),
    "plain text": (TEXT, {"text": "text"}),
}


def tokenizer_of(name: str, *, marked: bool) -> PreTrainedTokenizerFast:
    """Of bytes, with the template's own special tokens; what ends a turn ends a text."""
    template = (SHIPPED / f"{name}{'_training' if marked else ''}.jinja").read_text()
    special = sorted(set(re.findall(rf"<\|[^|<>]{{1,20}}\|>|<{BAR}[^{BAR}]{{1,30}}{BAR}>", template)))
    alphabet = {character: place for place, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    end = ENDS.get(name, "<|endoftext|>")
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token=end, pad_token="<pad>", extra_special_tokens=special
    )
    made.chat_template = template
    return made


def learned_by_trl(
    path: Path, tokenizer: PreTrainedTokenizerFast, *, assistant_only: bool
) -> list[tuple[list[int], list[bool]]]:
    """The tokens of each row and whether they are learned, as SFTTrainer has them before its first step."""
    import datasets  # noqa: PLC0415 - seconds of imports
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415

    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
    rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))
    settings = SFTConfig(
        output_dir=str(path.parent / "out"),
        assistant_only_loss=assistant_only,
        max_length=None,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    trainer = SFTTrainer(model=model, args=settings, train_dataset=rows, processing_class=tokenizer)
    found = []
    for row in trainer.train_dataset:
        labels = trainer.data_collator([row])["labels"][0].tolist()
        found.append((list(row["input_ids"]), [label != -100 for label in labels]))
    return found


def spelled(tokenizer: PreTrainedTokenizerFast, ids: list[int], chosen: list[bool]) -> str:
    """The chosen tokens as text."""
    return str(tokenizer.decode([token for token, is_chosen in zip(ids, chosen, strict=True) if is_chosen]))


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("name", NAMES)
def test_trl_trains_on_the_tokens_that_were_scored(kind: str, name: str, tmp_path: Path) -> None:
    """With marks where TRL needs them: for conversations of several replies."""
    rows, columns = ROWS[kind]
    conversations = [read(row, columns, Wanted()) for row in rows]
    written = write_trl(tmp_path, "train", conversations)
    marked = any("assistant_only_loss" in note for note in written.notes)
    tokenizer = tokenizer_of(name, marked=marked)
    ours = ConversationEncoder(tokenizer, 10_000).encode(conversations)
    if kind == "calls of tools" and name in WITHOUT_CALLS:
        assert [str(one.reason) for one in ours if isinstance(one, Refusal)] == ["template_refused"]
        return
    theirs = learned_by_trl(written.files[0], tokenizer, assistant_only=marked)
    for (ids, mask), encoded in zip(theirs, ours, strict=True):
        assert isinstance(encoded, Encoded)
        assert ids == encoded.input_ids.tolist()
        learned = encoded.loss_mask.tolist()
        assert spelled(tokenizer, ids, [one and not other for one, other in zip(learned, mask, strict=True)]) == ""
        more = spelled(tokenizer, ids, [other and not one for one, other in zip(learned, mask, strict=True)])
        ended = more.removesuffix("<|endoftext|>") if name == "phi3" else more
        assert EMPTY_THOUGHT.sub("", ended).strip("\n") == ""
