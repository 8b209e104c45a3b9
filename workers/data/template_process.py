"""The process that chat templates run in: `python -m workers.data.template_process MEMORY`.

A template is a program that comes with a model. It runs in Jinja's sandbox; should it break out, it finds a process
without credentials or environment that can open no file (not /proc/PID/environ of the worker either) and no connection,
with little memory, and with a parent that ends it when it is late.

Each line in is a JSON object and is answered by a line, one for each conversation:

    {}                                        -> {}, once it has started
    {"template": {...}, "seconds": 10}        -> {} or {"syntax": message} or {"memory": true}
    {"conversations": [...], "seconds": 10}   -> {"text", "responses", "ignored"} or {"reason", "said"} or
                                                 {"memory": true}
"""

from __future__ import annotations

import codecs
import json
import resource
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateSyntaxError

from workers.data.template_located import NotLocated
from workers.data.template_rendering import Conversation, Renderer, TextTooLong

if TYPE_CHECKING:
    from collections.abc import Iterable

LOADED = ("html", "jinja2.constants", "jinja2.debug", "pprint", "textwrap", "unicodedata")
"""What Jinja imports only when a filter, a global or an error needs it, by which time no file can be opened."""
CODECS = ("ascii", "unicode_escape")
"""Of the escapes in a template's strings, likewise."""


MOST_SAID = 300
"""Characters of a template's own words that are handed on."""


def load() -> None:
    """Import what rendering may need."""
    for module in LOADED:
        import_module(module)
    for codec in CODECS:
        codecs.lookup(codec)


def limit(memory: int) -> None:
    """Take from this process what rendering does not need; what it has open stays open."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def answers(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    """The answers to each line."""
    renderer: Renderer | None = None
    for line in lines:
        request = json.loads(line)
        if "template" in request:
            _set_alarm(request["seconds"])
            try:
                renderer = Renderer(**request["template"])
            except MemoryError:
                yield {"memory": True}
            except (TemplateSyntaxError, RecursionError) as error:
                yield {"syntax": f"{type(error).__name__}: {error}"[:500]}
            else:
                yield {}
            _set_alarm(0)
        elif renderer is not None:
            for conversation in request["conversations"]:
                _set_alarm(request["seconds"])
                yield _rendered(renderer, conversation)
            _set_alarm(0)
        else:
            yield {}


def _set_alarm(seconds: float) -> None:
    """The parent ends this process when it is late; should the parent be gone, the alarm does. 0 for none."""
    signal.setitimer(signal.ITIMER_REAL, 2 * seconds)


def _rendered(renderer: Renderer, conversation: dict[str, Any]) -> dict[str, Any]:
    try:
        written = renderer.render(Conversation(**conversation))
    except NotLocated as error:
        return {"reason": "template_not_prefix_stable", "said": str(error)}
    except TextTooLong:
        return {"reason": "row_too_long"}
    except MemoryError:
        return {"memory": True}
    except Exception as error:  # noqa: BLE001 - a template may raise anything, and refuses the row by it
        return {"reason": "template_refused", "said": str(error)[:MOST_SAID]}
    return {"text": written.text, "responses": written.responses, "ignored": written.ignored}


def main() -> None:
    """Answer until the parent is gone."""
    load()
    limit(int(sys.argv[1]))
    for answer in answers(sys.stdin.buffer):
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
