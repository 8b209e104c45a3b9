from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from workers.data.conversation import Conversation, to_conversation
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
