"""One rule for what is learned: of the last turn the same, whatever stands before it, with every template."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from workers.data.template_rendering import Conversation, Renderer
from workers.data.template_words import BAR, EMPTY_THOUGHT, END_TOKENS

if TYPE_CHECKING:
    from workers.data.template_rendering import Written

SHIPPED = {
    path.name.removesuffix(".jinja"): path.read_text()
    for path in sorted(
        (one for one in files("trl").joinpath("chat_templates").iterdir() if one.name.endswith(".jinja")),
        key=lambda one: one.name,
    )
}
"""The templates that the package `trl` ships, those of many models among them."""
CHATML_HEAD = "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' -}}"
CHATML_TAIL = "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
WRITTEN = {
    "chatml": CHATML_HEAD + "{{- m.content + '<|im_end|>\n' -}}" + CHATML_TAIL,
    "trimmed": CHATML_HEAD + "{{- m.content | trim -}}{{- '<|im_end|>\n' -}}" + CHATML_TAIL,
    "without a prompt": CHATML_HEAD + "{{- m.content + '<|im_end|>\n' -}}{%- endfor -%}",
    "text ended once": CHATML_HEAD
    + "{{- m.content + '<|im_end|>\n' -}}"
    + CHATML_TAIL.replace("{%- endif -%}", "{%- else -%}{{- '<|endoftext|>' -}}{%- endif -%}"),
    "thinks last": CHATML_HEAD
    + "{%- if m.role == 'assistant' and loop.last -%}{{- '<think>\n' + (m.reasoning_content or '') -}}"
    "{{- '\n</think>\n\n' -}}{%- endif -%}{{- m.content + '<|im_end|>\n' -}}" + CHATML_TAIL,
    "thinks in the prompt": CHATML_HEAD
    + "{%- if m.role == 'assistant' and m.thinking -%}{{- '<think>\n' + m.thinking + '</think>' -}}{%- endif -%}"
    "{{- m.content + '<|im_end|>\n' -}}" + CHATML_TAIL.replace("assistant\n", "assistant\n<think>\n"),
    "brackets": "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{{- '[THINK]' + (m.reasoning or '') +"
    " '[/THINK]' + m.content + '</s>' -}}{%- else -%}{{- '[INST] ' + m.content + ' [/INST]' -}}{%- endif -%}"
    "{%- endfor -%}",
    "a macro": "{%- macro turn(m) -%}{{- '<|im_start|>' + m.role + '\n' -}}{%- if m.role == 'assistant' -%}"
    "{%- generation -%}{{- m.content + '<|im_end|>' -}}{%- endgeneration -%}{%- else -%}"
    "{{- m.content + '<|im_end|>' -}}{%- endif -%}{{- '\n' -}}{%- endmacro -%}"
    "{%- for m in messages -%}{{- turn(m) -}}{%- endfor -%}",
    "a set block": "{%- for m in messages -%}{%- set said -%}{%- if m.role == 'assistant' -%}{%- generation -%}"
    "{{- m.content + '<|im_end|>' -}}{%- endgeneration -%}{%- else -%}{{- m.content + '<|im_end|>' -}}{%- endif -%}"
    "{%- endset -%}{{- '<|im_start|>' + m.role + '\n' + said + '\n' -}}{%- endfor -%}",
    "parts": CHATML_HEAD + "{%- for part in m.content -%}{%- if part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- endif -%}{%- endfor -%}{{- '<|im_end|>\n' -}}" + CHATML_TAIL,
    "no end": "{%- for m in messages -%}{{- '<|' + m.role + '|>' + m.content -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}",
    "an end that nobody knows": "{%- for m in messages -%}{{- '<|' + m.role + '|>\n' + m.content + '<fin>\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%}",
    "plain headings": "{%- for m in messages -%}{{- '### ' + m.role + ':\n' + m.content + '\n\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '### assistant:\n' -}}{%- endif -%}",
}
TEMPLATES = {**SHIPPED, **WRITTEN}
CONTROL = sorted(
    {*re.findall(rf"<\|?[\w/ ]+\|?>|<{BAR}[^{BAR}]+{BAR}>", "".join(SHIPPED.values())), "<fin>"} - {"<function>"}
)
REASONING = "add the two up"


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


@cache
def renderer_of(source: str) -> Renderer:
    ends = (token for token in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>") if token in source)
    return Renderer(source, {"bos_token": "<s>", "eos_token": next(ends, "</s>")}, CONTROL, 1_000_000)


def written(renderer: Renderer, turns: list[dict[str, Any]], **more: Any) -> Written:
    return renderer.render(Conversation(turns, [turn["role"] == "assistant" for turn in turns], **more))


def last_learned(renderer: Renderer, turns: list[dict[str, Any]]) -> str:
    """What is learned of the last turn: all that begins after the header that its user's words are followed by."""
    found = written(renderer, turns)
    place = found.text.rindex("What is 2+2?")
    return "".join(found.text[start:end] for start, end in found.responses if start >= place)


def talk(turns: int, last: dict[str, Any], earlier: dict[str, Any], system: bool) -> list[dict[str, Any]]:
    before = [turn for i in range(turns - 1) for turn in (user(f"Question {i}?"), assistant(f"Answer {i}.", **earlier))]
    head = [{"role": "system", "content": "Be brief."}] if system else []
    return [*head, *before, user("What is 2+2?"), last]


def takes_system(source: str) -> bool:
    return "System role not supported" not in source


LAST = {
    "plain": assistant("It is four."),
    "reasoning": assistant("It is four.", reasoning_content=REASONING),
    "reasoning in the content": assistant(f"<think>\n{REASONING}\n</think>\n\nIt is four."),
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("kind", LAST)
def test_the_last_turn_is_learned_alike_whatever_stands_before_it(name: str, kind: str) -> None:
    renderer = renderer_of(TEMPLATES[name])
    alone = last_learned(renderer, talk(1, LAST[kind], {}, system=False))
    assert "It is four." in alone
    thinking = {"reasoning_content": "the earlier thought"}
    for turns, earlier, system in (
        (2, {}, False),
        (2, thinking, False),
        (1, {}, True),
        (2, {}, True),
        (5, thinking, True),
    ):
        if not system or takes_system(TEMPLATES[name]):
            assert last_learned(renderer, talk(turns, LAST[kind], earlier, system)) == alone, (turns, earlier, system)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_reply_is_its_words_and_what_ends_them(name: str) -> None:
    """Never the header of another turn, never an empty thought, never the line end, and always the end of turn."""
    found = written(renderer_of(TEMPLATES[name]), talk(3, LAST["plain"], {}, system=False))
    learned = [found.text[start:end] for start, end in found.responses]
    for reply in learned:
        assert not EMPTY_THOUGHT.search(reply)
        assert not re.search(r"Question|What is|Be brief", reply)
        assert reply == reply.rstrip()
    if "{%" in TEMPLATES[name] and "generation" not in re.sub("add_generation_prompt", "", TEMPLATES[name]):
        for (_, end), reply in zip(found.responses, learned, strict=True):
            after = found.text[end:].lstrip()
            ended = reply.endswith((*END_TOKENS, "<fin>"))
            assert ended or not after.startswith((*END_TOKENS, "<fin>"))


@pytest.mark.parametrize("name", [name for name, source in TEMPLATES.items() if "reasoning_content" in source])
def test_a_thought_that_the_template_writes_is_learned(name: str) -> None:
    found = written(renderer_of(TEMPLATES[name]), talk(2, LAST["reasoning"], {}, system=False))
    learned = "".join(found.text[start:end] for start, end in found.responses)
    assert (REASONING in learned) == (REASONING in found.text)
    assert (REASONING in found.text) != ("reasoning_content" in found.ignored)


GENERATING = {name: text for name, text in TEMPLATES.items() if re.search(r"%-?\s*generation", text)}


@pytest.mark.parametrize("name", GENERATING)
@pytest.mark.parametrize("kind", LAST)
def test_what_the_template_marks_is_what_transformers_takes_less_what_the_rule_leaves_out(name: str, kind: str) -> None:
    turns = talk(2, LAST[kind], {}, system=False)
    theirs = turns
    if name in ("idefics3_training", "llava_next_training", "smolvlm_training"):  # which take parts alone
        theirs = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    [text], [spans] = render_jinja_template(  # type: ignore[misc]  # declared to return a string
        [theirs], chat_template=GENERATING[name], return_assistant_tokens_mask=True, **special
    )
    ours = written(Renderer(GENERATING[name], special, CONTROL, 1_000_000), turns)
    assert re.sub(r"\d{4}-\d\d-\d\d", "", ours.text) == re.sub(r"\d{4}-\d\d-\d\d", "", text)
    if name in ("a macro", "a set block"):  # where transformers gives places in a text that is not the whole one
        return
    expected = [EMPTY_THOUGHT.sub("", text[start:end], count=1) for start, end in spans]
    learned = [ours.text[start:end] for start, end in ours.responses]
    assert [one.rstrip() for one in expected] == learned


WEATHER = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
WORDS_AFTER_ANSWERS = (
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{{- '<|im_start|>assistant\n' -}}"
    "{%- for call in m.tool_calls or [] -%}{{- '<call>' + call.function.name + '</call>' -}}{%- endfor -%}"
    "{%- if m.tool_calls and not loop.last -%}{{- '<answer>' + messages[loop.index0 + 1].content -}}"
    "{{- '</answer>' -}}{%- endif -%}"
    "{{- m.content + '<|im_end|>\n' -}}{%- elif m.role == 'user' -%}"
    "{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
GEMMA_CALL = '<|tool_call>call:weather{city:<|"|>Oslo<|"|>}<tool_call|>'


@pytest.mark.parametrize(
    ("source", "learned"),
    [
        *(
            (source, [GEMMA_CALL, "Let me look.", "It is five.<turn|>"])
            for name, source in SHIPPED.items()
            if name.startswith("gemma4") and name != "gemma4_v2"  # which has no calls
        ),
        (SHIPPED["diffusion_gemma"], [GEMMA_CALL, "Let me look.", "It is five.<turn|>"]),
        (SHIPPED["diffusion_gemma_training"], [GEMMA_CALL, "Let me look.", "It is five.", "<turn|>"]),
        (WORDS_AFTER_ANSWERS, ["<call>weather</call>", "Let me look.<|im_end|>", "It is five.<|im_end|>"]),
    ],
)
def test_what_a_tool_answers_is_not_learned_where_the_template_writes_it_amid_a_reply(
    source: str, learned: list[str]
) -> None:
    turns = [
        user("How warm?"),
        assistant("Let me look.", tool_calls=[WEATHER]),
        {"role": "tool", "content": "warm enough", "name": "weather"},
        assistant("It is five."),
    ]
    found = written(renderer_of(source), turns)
    assert "warm enough" in found.text
    assert [found.text[start:end] for start, end in found.responses] == learned


@pytest.mark.parametrize("name", ["glm4moe", *(name for name in SHIPPED if name.startswith("nemotron"))])
@pytest.mark.parametrize("thought", ["<think>\nhm\n</think>\n\n", "<think>hm</think>", "<think>\n</think>\n"])
def test_of_a_thought_in_a_content_that_the_template_empties_no_tag_is_learned(name: str, thought: str) -> None:
    found = written(
        renderer_of(SHIPPED[name]), [user("Hi"), assistant(f"{thought}Yes."), *talk(1, LAST["plain"], {}, system=False)]
    )
    start, end = found.responses[0]
    assert re.search(r"<think>\s*</think>\s*\Z", found.text[:start])
    assert found.text[start:end] in ("Yes.", "Yes.<|im_end|>")


def test_of_equal_texts_the_same_is_learned() -> None:
    """Qwen3 writes an empty thought and one empty line before a last reply, also where the row has the line."""
    renderer = renderer_of(SHIPPED["qwen3"])
    bare, spaced = (written(renderer, [user("Hi"), assistant(reply)]) for reply in ("Yes.", "\n\nYes."))
    assert bare.text == spaced.text
    assert bare.responses == spaced.responses


MODES = (
    "{%- set mode = '/think' -%}{%- set system = '' -%}{%- if messages[0].role == 'system' -%}"
    "{%- if '/no_think' in messages[0].content -%}{%- set mode = '/no_think' -%}{%- endif -%}"
    "{%- set system = messages[0].content.replace('/no_think', '').replace('/think', '').rstrip() -%}{%- endif -%}"
    "{{- '<|im_start|>system\n' + mode + '\n' + (system or 'Help.') + '<|im_end|>\n' -}}"
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' -}}"
    "{%- elif m.role == 'assistant' -%}{% generation %}{{- '<|im_start|>assistant\n' -}}"
    "{%- if mode == '/no_think' -%}{{- '<think>\n\n</think>\n' -}}{%- endif -%}{{- m.content + '<|im_end|>\n' -}}"
    "{% endgeneration %}{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}"
    "{%- if mode == '/no_think' -%}{{- '<think>\n\n</think>\n' -}}{%- endif -%}{%- endif -%}"
)
"""As SmolLM3 does it: a word of the system prompt says whether to think, and is taken out of it."""


@pytest.mark.parametrize(
    ("system", "mode", "left"),
    [
        ("/no_think", "/no_think", "Help."),
        ("Be brief. /no_think", "/no_think", "Be brief."),
        ("To be /no_think brief", "/no_think", "To be  brief"),
        ("Be brief./think", "/think", "Be brief."),
    ],
)
def test_words_that_a_template_takes_out_of_a_system_prompt_refuse_no_row(system: str, mode: str, left: str) -> None:
    turns = [{"role": "system", "content": system}, *talk(2, LAST["plain"], {}, system=False)]
    plain = written(renderer_of(re.sub("{% (end)?generation %}", "", MODES)), turns)
    assert plain.text.startswith(f"<|im_start|>system\n{mode}\n{left}<|im_end|>\n")
    replies = ["Answer 0.<|im_end|>", "It is four.<|im_end|>"]
    assert [plain.text[start:end] for start, end in plain.responses] == replies
    marked = written(renderer_of(MODES), turns)
    assert (marked.text, plain.ignored, marked.ignored) == (plain.text, [], [])
    learned = "".join(marked.text[start:end] for start, end in marked.responses)
    assert learned == "".join("<|im_start|>assistant\n" + reply for reply in replies)


def test_what_is_not_marked_and_changes_nothing_is_told() -> None:
    asked = [{"role": "system", "content": "/think"}, user("Hi"), assistant("Yes.")]
    assert written(renderer_of(MODES), asked).ignored == ["system"]


@pytest.mark.parametrize("escaped", ["tojson", "e"])
@pytest.mark.parametrize("reply", ["Yes.", 'It said "x < y" and left.\nThen "z".', 'a b c d e f g h "i"'])
def test_a_reply_that_the_template_escapes_is_learned_to_its_end(escaped: str, reply: str) -> None:
    source = (
        "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content | ESCAPED }}"
        "{{ eos_token }}{% endgeneration %}{% else %}{{ m.content | ESCAPED }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    ).replace("ESCAPED", escaped)
    turns = [user("Hi"), assistant(reply), user("So?"), assistant(reply)]
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    [text], [spans] = render_jinja_template(  # type: ignore[misc]  # declared to return a string
        [turns], chat_template=source, return_assistant_tokens_mask=True, **special
    )
    plain = Renderer(re.sub("{% (end)?generation %}", "", source), special, CONTROL, 10_000)
    found = written(plain, turns)
    assert found.text == text
    assert found.responses == spans
