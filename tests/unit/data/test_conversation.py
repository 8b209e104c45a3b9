from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from trl.data_utils import extract_prompt

from workers.data.conversation import Conversation, Wanted, to_conversation
from workers.data.rejection import Reason
from workers.data.shapes import recognise

if TYPE_CHECKING:
    from spice_rows.shape import Shape


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def turns_of(values: dict[str, Any], shape: Shape) -> object:
    found = to_conversation(values, shape)
    return found.messages if isinstance(found, Conversation) else found


PAIR = recognise(["prompt", "response"])
ALPACA = recognise(["instruction", "input", "output"])
CHAT = recognise(["messages"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"prompt": "p", "response": "r"}, [user("p"), assistant("r")]),
        ({"prompt": "", "response": " r\n"}, [user(""), assistant(" r\n")]),
        ({"prompt": "p", "response": ""}, Reason.EMPTY_RESPONSE),
        ({"prompt": "p", "response": " \n\t"}, Reason.EMPTY_RESPONSE),
        ({"prompt": "p", "response": None}, Reason.MISSING_VALUE),
        ({"prompt": None, "response": "r"}, Reason.MISSING_VALUE),
        ({"prompt": "p"}, Reason.MISSING_VALUE),
        ({"prompt": "p", "response": 42}, Reason.WRONG_TYPE),
        ({"prompt": ["p"], "response": "r"}, Reason.WRONG_TYPE),
        ({"prompt": "p", "response": b"r"}, [user("p"), assistant("r")]),
        ({"prompt": "\ud800", "response": "r"}, Reason.INVALID_UTF8),
    ],
)
def test_prompt_and_response(values: dict[str, Any], expected: object) -> None:
    assert turns_of(values, PAIR) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"instruction": "do", "input": "this", "output": "done"}, [user("do\n\nthis"), assistant("done")]),
        ({"instruction": "do", "input": "", "output": "done"}, [user("do"), assistant("done")]),
        ({"instruction": "do", "input": None, "output": "done"}, [user("do"), assistant("done")]),
        ({"instruction": "do", "output": "done"}, [user("do"), assistant("done")]),
        ({"instruction": "do", "input": 3, "output": "done"}, Reason.WRONG_TYPE),
        ({"instruction": None, "input": "x", "output": "done"}, Reason.MISSING_VALUE),
    ],
)
def test_alpaca(values: dict[str, Any], expected: object) -> None:
    assert turns_of(values, ALPACA) == expected


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([user("a"), assistant("b")], [user("a"), assistant("b")]),
        (
            [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
            [user("a"), assistant("b")],
        ),
        ([user("a"), assistant("b"), user("unanswered")],) * 2,
        ([user("a"), assistant(""), user("b"), assistant("c")],) * 2,
        (
            [user("a"), {"role": "Assistant", "content": [{"type": "text", "text": t} for t in "bc"]}],
            [user("a"), assistant("bc")],
        ),
        ([assistant("b")], [assistant("b")]),
        ([], Reason.EMPTY_RESPONSE),
        ([user("a")], Reason.EMPTY_RESPONSE),
        ([user("a"), assistant(" ")], Reason.EMPTY_RESPONSE),
        (None, Reason.MISSING_VALUE),
        ("[]", Reason.EMPTY_RESPONSE),
        ("a", Reason.WRONG_TYPE),
        (["a"], Reason.WRONG_TYPE),
        ([{"role": "wizard", "content": "a"}], Reason.WRONG_TYPE),
        ([{"role": 1, "content": "a"}], Reason.WRONG_TYPE),
        ([{"content": "a"}], Reason.MISSING_VALUE),
        ([{"role": "user"}], Reason.MISSING_VALUE),
        ([user("a"), {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}],) * 2,
        ([user("a"), {"role": "assistant", "content": "b", "tool_calls": [{"id": 1}]}],) * 2,
        ([user("a"), {"role": "assistant", "content": "b", "tool_calls": 7}], Reason.WRONG_TYPE),
        ([user("a"), {"role": "assistant", "content": [{"type": "image"}]}], Reason.WRONG_TYPE),
        ([user("a"), {"role": "assistant", "content": 7}], Reason.WRONG_TYPE),
    ],
)
def test_chat(turns: object, expected: object) -> None:
    assert turns_of({"messages": turns}, CHAT) == expected


def read(values: dict[str, Any], columns: dict[str, str] | None = None, **wanted: Any) -> Conversation | Reason:
    return to_conversation(values, recognise(list(values), columns), Wanted(**wanted))


@pytest.mark.parametrize("flag", ["weight", "train", "loss", "trainable"])
@pytest.mark.parametrize(
    ("value", "learned", "ignored"),
    [
        (False, False, False),
        (0, False, False),
        (0.0, False, False),
        ("false", False, False),
        ("0", False, False),
        (True, True, False),
        (1, True, False),
        ("True", True, False),
        (0.5, True, True),
        ("half", True, True),
    ],
)
def test_a_flag_is_obeyed_however_it_is_written_or_told(flag: str, value: object, learned: bool, ignored: bool) -> None:
    found = read({"messages": [user("a"), {**assistant("b"), flag: value}, user("c"), assistant("d")]})
    assert isinstance(found, Conversation)
    assert found.learned == [False, learned, False, True]
    assert found.ignored == ({flag} if ignored else set())


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"messages": [user("a"), assistant("b")], "label": False}, None),
        ({"messages": [user("a"), assistant("b")], "good": False}, {"messages": "messages", "label": "good"}),
        ({"instruction": "a", "input": "", "output": "b", "kto_tag": False}, None),
        ({"prompt": "a", "completion": "b", "label": False}, None),
    ],
)
def test_a_label_of_false_leaves_a_row_out_in_every_shape_that_may_have_one(
    row: dict[str, Any], columns: dict[str, str] | None
) -> None:
    assert read(row, columns) == Reason.UNDESIRABLE
    assert isinstance(read(row, columns, preference="rejected"), Conversation)
    assert isinstance(
        read({**row, **{name: True for name, value in row.items() if value is False}}, columns), Conversation
    )


def test_a_history_stands_before_the_turns_in_every_shape_and_after_a_system_turn() -> None:
    system, past = {"role": "system", "content": "s"}, [["q", "w"]]
    before = [system, user("q"), assistant("w")]
    chat = read({"messages": [system, user("a"), assistant("b")], "h": past}, {"messages": "messages", "history": "h"})
    assert isinstance(chat, Conversation)
    assert (chat.messages, chat.learned) == ([*before, user("a"), assistant("b")], [False, False, True, False, True])
    names = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "history": "h", "system": "s"}
    pair = read({"prompt": "a", "chosen": "b", "rejected": "c", "h": past, "s": "s"}, names, preference="dpo")
    assert isinstance(pair, Conversation)
    assert pair.rejected is not None
    assert (pair.messages, pair.rejected.messages) == tuple([*before, user("a"), assistant(said)] for said in "bc")
    assert pair.learned == pair.rejected.learned == [False] * 4 + [True]


def test_a_column_that_a_shape_has_no_use_for_is_told_although_it_was_named() -> None:
    row = {"t": "hello", "s": "be brief", "h": [["q", "w"]], "f": [{"name": "f"}], "l": False, "k": {"a": 1}}
    names = {"text": "t", "system": "s", "history": "h", "tools": "f", "label": "l", "chat_template_kwargs": "k"}
    plain = read(row, names)
    assert isinstance(plain, Conversation)
    assert plain.ignored == {"s", "h", "f", "l", "k"}
    pair = read({"c": "b", "r": "c", "l": False}, {"chosen": "c", "rejected": "r", "label": "l"})
    assert isinstance(pair, Conversation)
    assert pair.ignored == {"l"}


@pytest.mark.parametrize(
    "before",
    [
        [user("a")],
        [{"role": "system", "content": "s"}, user("a")],
        [user("earlier"), assistant("yes"), user("a")],
    ],
)
def test_a_prompt_that_both_sides_of_a_pair_hold_is_not_asked_twice(before: list[dict[str, str]]) -> None:
    found = read({"prompt": "a", "chosen": [*before, assistant("b")], "rejected": [*before, assistant("c")]})
    assert isinstance(found, Conversation)
    assert found.messages == [*before, assistant("b")]
    assert found.learned == [False] * len(before) + [True]


@pytest.mark.parametrize(
    ("asked", "before"),
    [
        ({"conversations": [{"from": "human", "value": "a"}]}, [user("a")]),  # LLaMA-Factory's, as its demo has it
        ({"messages": [user("q"), assistant("w"), user("a")]}, [user("q"), assistant("w"), user("a")]),
        ({"instruction": "a", "input": "with b"}, [user("a\n\nwith b")]),
        ({"instruction": "a", "input": None}, [user("a")]),
        ({"system": "s", "question": "a"}, [{"role": "system", "content": "s"}, user("a")]),
        ({"system": "s", "input": "a"}, [{"role": "system", "content": "s"}, user("a")]),
    ],
)
@pytest.mark.parametrize(("chosen", "rejected"), [("b", "c"), (assistant("b"), assistant("c"))])
def test_a_pair_has_the_prompt_of_another_column_where_none_is_named_so(
    asked: dict[str, Any], before: list[dict[str, str]], chosen: object, rejected: object
) -> None:
    found = read({**asked, "chosen": chosen, "rejected": rejected}, preference="dpo")
    assert isinstance(found, Conversation)
    assert found.rejected is not None
    assert (found.messages, found.rejected.messages) == ([*before, assistant("b")], [*before, assistant("c")])
    assert (found.learned, found.ignored) == ([False] * len(before) + [True], set())


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("\n\nHuman: Hi?\n\nAssistant: I greet you.", "\n\nHuman: Hi?\n\nAssistant: Go away."),
        (
            "Human: A?\n\nAssistant: B.\n\nHuman: C?\n\nAssistant: Das ist ä.",
            "Human: A?\n\nAssistant: B.\n\nHuman: C?\n\nAssistant: Das ist o.",
        ),
    ],
)
def test_two_texts_without_a_prompt_are_parted_as_trl_parts_them(chosen: str, rejected: str) -> None:
    """Anthropic's pairs are such: what the human says in them is not learned."""
    parted = extract_prompt({"chosen": chosen, "rejected": rejected})
    assert parted["prompt"]
    found = read({"chosen": chosen, "rejected": rejected}, preference="dpo")
    assert isinstance(found, Conversation)
    assert found.rejected is not None
    asked = user(parted["prompt"])
    assert found.messages == [asked, assistant(parted["chosen"])]
    assert found.rejected.messages == [asked, assistant(parted["rejected"])]
    assert found.learned == found.rejected.learned == [False, True]


@pytest.mark.parametrize(("chosen", "rejected"), [("Yes.", "No."), ("Yes.", "Yes. No."), ("Yes", "Yes"), (" a", " b")])
def test_two_texts_that_share_no_prompt_are_replies(chosen: str, rejected: str) -> None:
    found = read({"chosen": chosen, "rejected": rejected})
    assert isinstance(found, Conversation)
    assert found.messages == [assistant(chosen)]


def test_whole_conversations_need_no_prompt_of_another_column() -> None:
    talk = {"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]}
    found = read({"messages": talk["chosen"], **talk})
    assert isinstance(found, Conversation)
    assert (found.messages, found.learned, found.ignored) == (talk["chosen"], [False, True], {"messages"})
    found = read({"question": "a", **talk})
    assert isinstance(found, Conversation)
    assert (found.messages, found.ignored) == (talk["chosen"], set()), "it is in the conversations"


def test_what_a_part_of_a_content_says_besides_its_text_is_told() -> None:
    cached = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}, "image_url": None}
    thought = {"type": "thinking", "thinking": "hm", "signature": "xyz"}
    reply = {"role": "assistant", "content": [thought, {"type": "text", "text": "b"}]}
    found = read({"messages": [{"role": "user", "content": [cached]}, reply]})
    assert isinstance(found, Conversation)
    assert found.ignored == {"cache_control", "signature"}
    assert found.messages == [user("a"), {**assistant("b"), "reasoning_content": "hm"}]


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"name": "f", "description": "\ud800"}]},
        {"chat_template_kwargs": {"style": "\ud800"}},
        {"messages": [user("a"), {"role": "tool", "content": {"x": ["\ud800"]}}, assistant("b")]},
        {
            "messages": [
                user("a"),
                {**assistant(""), "tool_calls": [{"function": {"name": "f", "arguments": {"\ud800": 1}}}]},
            ]
        },
    ],
)
def test_half_a_surrogate_pair_is_refused_however_deep_it_lies(more: dict[str, Any]) -> None:
    assert read({"messages": [user("a"), assistant("b")], **more}) == Reason.INVALID_UTF8
