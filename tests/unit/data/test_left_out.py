"""What a row says and a chat template looks at but does not write is told by name."""

from __future__ import annotations

from typing import Any

import pytest

from workers.data.template_rendering import Conversation, Renderer

CALLING = (
    "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{{ m.content if m.content is string else '' }}"
    "{% for call in m.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments }}){% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOOLS_OF_A_TURN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}{{ m['tools'] or '' }}{{ '<|im_end|>\n' }}"
    "{% endfor %}"
)
NAMED = (
    "{% for m in messages %}{{ '<|im_start|>' + (m.name or m.role) + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
)
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.thinking and loop.last %}{{ '<think>' + "
    "m.thinking + '</think>' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
)
TOOL = {"type": "function", "function": {"name": "weather"}}


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def called(**function: Any) -> dict[str, Any]:
    return assistant("", tool_calls=[{"type": "function", "function": {"name": "weather", **function}}])


def ignored(source: str, turns: list[dict[str, Any]], tools: list[Any] | None = None) -> list[str]:
    control = ["<|im_start|>", "<|im_end|>"]
    renderer = Renderer(source, {"bos_token": "", "eos_token": "<|im_end|>"}, control, 10_000)
    return renderer.render(Conversation(turns, [turn["role"] == "assistant" for turn in turns], tools)).ignored


@pytest.mark.parametrize(
    ("source", "turns", "tools", "left_out"),
    [
        (CALLING, [user("Hi", name="Zed"), assistant("Yes.")], None, ["name"]),
        (NAMED, [user("Hi", name="Zed"), assistant("Yes.")], None, []),
        (CALLING, [user("Hi"), assistant("Yes.")], [TOOL], []),
        (TOOLS_OF_A_TURN, [user("Hi"), assistant("Yes.")], [TOOL], ["tools"]),
        (CALLING, [user("Hi"), called(arguments={"city": "Oslo"})], None, []),
        (CALLING, [user("Hi"), called(args={"city": "Oslo"})], None, ["tool_calls.args"]),
        (
            CALLING,
            [user("Hi"), called(arguments={}), {"role": "tool", "content": {"t": 5}}, assistant("5.")],
            None,
            ["tool"],
        ),
        (THINKING, [user("Hi"), assistant("Yes.", reasoning_content="hm")], None, []),
        (THINKING, [user("Hi"), assistant("Yes.", reasoning="hm"), user("So?"), assistant("No.")], None, ["reasoning"]),
        (THINKING, [user("Hi"), assistant("Yes.", thinking="hm", reasoning="well")], None, ["reasoning"]),
    ],
)
def test_what_changes_nothing_in_the_text_is_told(
    source: str, turns: list[dict[str, Any]], tools: list[Any] | None, left_out: list[str]
) -> None:
    assert ignored(source, turns, tools) == left_out


def test_a_reply_after_a_tool_begins_alike_whatever_the_tool_answers() -> None:
    """The header of the answer repeats the name that the call has, which has a mark."""
    source = (
        "{% for m in messages %}{% if m.tool_calls %}{% set called = m.tool_calls[0].function %}"
        "{{ '<|start|>assistant to=' + called.name + '<|message|>{}<|call|>' }}{% elif m.role == 'tool' %}"
        "{% set called = messages[loop.index0 - 1].tool_calls[0].function %}"
        "{{ '<|start|>' + called.name + '<|message|>' + m.content | tojson + '<|end|>' }}{% else %}"
        "{{ '<|start|>' + m.role }}{% if m.role == 'assistant' %}{{ '<|channel|>final' }}{% endif %}"
        "{{ '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
    )
    control = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>"]
    renderer = Renderer(source, {"bos_token": "", "eos_token": "<|end|>"}, control, 10_000)
    for answer in ("rain", {"sky": "rain"}, ""):
        turns = [user("Hi"), called(arguments={}), {"role": "tool", "content": answer}, assistant("It rains.")]
        found = renderer.render(Conversation(turns, [False, True, False, True]))
        start, end = found.responses[-1]
        assert found.text[start:end] == "<|channel|>final<|message|>It rains.<|end|>"
