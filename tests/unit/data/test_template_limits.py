"""A chat template is a program that comes with a model: what it writes is what transformers would have it write, and
one that loops, fills the memory or tries to get out fails the job or the row, and does nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from workers.data.chat_template import ChatTemplate, Rendered
from workers.data.errors import DatasetError
from workers.data.rejection import Reason, Refusal
from workers.data.template_environment import compiled
from workers.data.template_process import answers
from workers.data.template_rendering import Renderer
from workers.data.template_server import ROOT, SERVER, TemplateLimits
from workers.data.tokenisation import ConversationEncoder

from .conftest import CHATML, conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


CHAT: list[dict[str, Any]] = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
LIMITS = TemplateLimits(seconds=20.0, memory_bytes=256 << 20, text_bytes=100_000)
IMPATIENT = TemplateLimits(seconds=1.0, memory_bytes=256 << 20, text_bytes=100_000)
MARKED = (
    "{% for m in messages %}{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}"
    "{%- if add_generation_prompt %}assistant: {% endif %}"
)
UNUSED: dict[str, Any] = {"variables": {}, "control_tokens": [], "most_characters": 99_999}
TEMPLATES = [
    CHATML,
    MARKED,
    "{%- for m in messages %}\n  {%- if loop.first %}{% continue %}{% endif %}\n{{ m | tojson }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n ~ m.role }}{% endfor %}",
    "{{ dict(a=messages[0].role) | tojson(indent=2) }}{{ bos_token }}{{ tools is none }}{{ documents }}é<&>",
    "{{ '<é>' | tojson }}{{ messages | tojson }}{{ messages | length }}",
    "{% macro say(m) %}[{{ m.role | upper }}]{% endmacro %}{% for m in messages[::-1] %}{{ say(m) }}{% endfor %}",
]


@pytest.mark.parametrize("template", TEMPLATES)
@hypothesis_settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_what_is_written_is_what_transformers_writes(template: str, contents: list[str]) -> None:
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    marked = template == MARKED
    texts, spans = render_jinja_template(  # type: ignore[misc]  # declared to return a string
        [messages], chat_template=template, return_assistant_tokens_mask=marked, bos_token="<s>"
    )
    renderer = Renderer(template, {"bos_token": "<s>"}, (), 10_000)
    assert renderer.write(messages, {"tools": None}) == texts[0]
    spoken = [i for i, message in enumerate(messages) if i % 2 and message["content"].strip()]
    if marked and spoken:
        written = renderer.render(conversation(messages))
        said = [tuple(spans[0][i]) for i in spoken]
        assert (written.text, written.responses) == (texts[0], said)


def render(tokenizer: PreTrainedTokenizerFast, template: str, limits: TemplateLimits = LIMITS) -> Rendered | Refusal:
    tokenizer.chat_template = template
    [rendered] = ChatTemplate(tokenizer, limits).render([conversation(CHAT)])
    return rendered


@pytest.mark.parametrize(
    "loop",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ '' }}{% endfor %}{% endfor %}",
        "{{ 7 ** (7 ** 9) }}",
        "{{ ('a' * 30 ~ 'b') | replace('a', 'aa') }}{% for a in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
    ],
)
def test_one_that_loops_fails_the_job_in_time(chatml: PreTrainedTokenizerFast, loop: str) -> None:
    began = time.monotonic()
    with pytest.raises(DatasetError, match=r"took more than 1 s for one row.*SPICE_TEMPLATE_TIMEOUT_S") as caught:
        render(chatml, loop + CHATML, IMPATIENT)
    assert caught.value.reason_code == "chat_template_broken"
    assert time.monotonic() - began < 10
    assert isinstance(render(chatml, CHATML), Rendered)  # the next one is none the worse


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'x' * 10000000000 }}",
        "{{ 'x' | center(10000000000) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ [messages] * 1000000000 }}",
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    ],
)
def test_one_that_fills_the_memory_fails_the_job(chatml: PreTrainedTokenizerFast, bomb: str) -> None:
    with pytest.raises(DatasetError, match=r"takes more than 268,435,456 bytes of memory.*SPICE_TEMPLATE_MAX_BYTES"):
        render(chatml, bomb + CHATML)
    assert isinstance(render(chatml, CHATML), Rendered)


def test_a_text_without_end_refuses_the_row(chatml: PreTrainedTokenizerFast) -> None:
    for endless in ("{% for a in range(99999) %}{{ 'abc' }}{% endfor %}", "{{ 'x' * 200000 }}"):
        assert render(chatml, endless + CHATML) == Refusal(Reason.ROW_TOO_LONG)


@pytest.mark.parametrize(
    "attempt",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages | attr('__class__') | attr('__init__') | attr('__globals__') }}",
        "{{ cycler.__init__.__globals__.os.system('touch MARK') }}",
        "{{ lipsum.__globals__['os'].popen('touch MARK').read() }}",
        "{{ self.__init__.__globals__.__builtins__.open('MARK', 'w') }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
        "{{ ('{0.__class__}' | format)(messages) }}",
        "{{ dict.__call__.__globals__ }}",
        "{% set ns = namespace(_x=1) %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends '/etc/passwd' %}",
        "{{ 1 // 0 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_one_that_tries_to_get_out_refuses_the_row(
    chatml: PreTrainedTokenizerFast, tmp_path: Path, attempt: str
) -> None:
    mark = tmp_path / "mark"
    result = render(chatml, attempt.replace("MARK", str(mark)) + CHATML)
    # An attribute that the sandbox hides is undefined, and undefined writes nothing.
    assert getattr(result, "reason", None) is Reason.TEMPLATE_REFUSED or result == render(chatml, CHATML)
    assert not mark.exists()


@pytest.mark.parametrize("source", ["{% for %}", "{{", "{% generation %}", "{{ " + "(" * 5000 + ")" * 5000 + " }}"])
def test_one_that_is_no_jinja_fails_the_job(chatml: PreTrainedTokenizerFast, source: str) -> None:
    chatml.chat_template = source
    with pytest.raises(DatasetError, match="is not valid Jinja"):
        ConversationEncoder(chatml, 64)


def test_the_process_has_nothing_to_steal(chatml: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    SERVER._end()
    render(chatml, CHATML)
    assert SERVER._process is not None
    pid = SERVER._process.pid
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert "Max file size             0 " in limits
    assert "Max open files            0 " in limits
    assert "Max address space         268435456" in limits
    assert os.getsid(pid) == pid  # no signal to the worker's group reaches it


@pytest.mark.parametrize("step", ["open('/proc/%d/environ')", "socket.socket()", "os.pipe()", "os.listdir('/')"])
def test_whoever_is_out_of_the_sandbox_opens_nothing(step: str) -> None:
    """Not the environment of the worker either, where the credentials are; root opens none of it."""
    code = (
        "import os, socket; from workers.data.template_process import limit; limit(256 << 20)\n"
        f"try: {step % os.getpid() if '%' in step else step}\n"
        "except OSError as error: print(error.strerror)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "Too many open files\n", done.stderr


SAID = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
FILTERS = sorted(set(compiled("").environment.filters) - {"random"})


def test_what_jinja_loads_late_is_there_before_nothing_can_be_opened() -> None:
    """Every filter, its errors, and the escapes of strings do what they do in a process without limits."""
    values = ("'<b>two words</b> {}'", "[3, 1, 2]", "messages", "2.5", "undefined")
    sources = [f"{{{{ {value} | {name} }}}}" for name in FILTERS for value in values]
    sources += [r"{{ '\N{LATIN SMALL LETTER E WITH ACUTE}\u00e9\x41' }}", "{{ lipsum(n=1, html=false) | length > 9 }}"]
    sources += ["{{ 'a b' | wordwrap(1) }}", "{{ 1 / 0 }}", "{{ nothing.at.all }}", "{{"]
    for source in sources:
        template = {"source": source + SAID, **UNUSED}
        lines = [
            {"template": template, "seconds": 20},
            {"conversations": [conversation(CHAT).document()], "seconds": 20},
        ]
        compiling, *rendered = answers(json.dumps(line).encode() for line in lines)
        if "syntax" in compiling:
            with pytest.raises(DatasetError, match=re.escape(compiling["syntax"])):
                SERVER.check(template, LIMITS)
            continue
        if "0x" in json.dumps(rendered) or "another text" in json.dumps(rendered):
            continue  # a template that writes where in memory an object is writes another text each time
        found = SERVER.render(template, [conversation(CHAT).document()], LIMITS)
        assert json.dumps(found) == json.dumps(rendered), source


def test_it_starts_again_after_it_was_killed(chatml: PreTrainedTokenizerFast) -> None:
    template = ChatTemplate(chatml, LIMITS)
    first = template.render([conversation(CHAT)] * 2)
    assert SERVER._process is not None
    os.kill(SERVER._process.pid, signal.SIGKILL)
    SERVER._process.wait()
    assert template.render([conversation(CHAT)] * 2) == first


def kill_at_each(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a signal end the process as it is asked to render, so many times."""
    send, left = SERVER._send, iter(range(turns))

    def killed(request: dict[str, Any]) -> None:
        if "conversations" in request and next(left, None) is not None:
            assert SERVER._process is not None
            os.kill(SERVER._process.pid, signal.SIGKILL)
            SERVER._process.wait()
        send(request)

    monkeypatch.setattr(SERVER, "_send", killed)


def test_what_was_killed_while_it_rendered_is_done_again_once(
    chatml: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = ChatTemplate(chatml, LIMITS)
    first = template.render([conversation(CHAT)] * 2)
    kill_at_each(1, monkeypatch)
    assert template.render([conversation(CHAT)] * 2) == first
    kill_at_each(2, monkeypatch)
    with pytest.raises(DatasetError, match="ended twice by SIGKILL") as caught:
        template.render([conversation(CHAT)] * 2)
    assert caught.value.reason_code == "template_process_killed"
    assert "template takes" not in str(caught.value), "the template is not at fault"


def test_it_ends_with_its_parent() -> None:
    code = (
        "from workers.data.template_server import SERVER, TemplateLimits as L\n"
        "SERVER.check({'source': '', 'variables': {}, 'control_tokens': [], 'most_characters': 9}, L())\n"
        "print(SERVER._process.pid, flush=True); import os; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_protocol() -> None:
    template = {"source": "{{ messages[0].content }}", "variables": {}, "control_tokens": [], "most_characters": 9}
    lines: list[dict[str, Any]] = [
        {},
        {"template": template, "seconds": 5},
        {"conversations": [conversation(CHAT).document()], "seconds": 5},
        {"template": {**template, "source": "{{"}, "seconds": 5},
    ]
    started, first, second, third = answers(json.dumps(line).encode() for line in lines)
    assert (started, first, second["reason"], list(third)) == ({}, {}, "template_refused", ["syntax"])
    assert second["said"] == "the chat template leaves out what the assistant says"
