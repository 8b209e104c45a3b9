"""The Jinja that chat templates run in: what transformers offers them, and nothing else.

This and its two neighbours are what the rendering process loads: the standard library and Jinja alone, so that it
starts in a tenth of a second.
"""

from __future__ import annotations

import datetime as dt
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jinja2.parser import Parser

# Some templates put today's date into the system prompt; samples, and with them the whole selection, would then
# depend on the day. This is the date that Llama's template itself falls back to.
FIXED_DAY = dt.datetime(2024, 7, 26)  # noqa: DTZ001 - templates write it without a zone
FIXED_DATE = FIXED_DAY.strftime("%d %b %Y")  # also loads what strftime needs, while files can be opened


def compiled(source: str) -> jinja2.Template:
    """A template in the sandbox: no attribute that begins with an underscore, no change of what is passed in.

    Raises:
        jinja2.TemplateSyntaxError: It is not valid Jinja.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    return environment.from_string(source)


class Generation(Extension):
    """``{% generation %}...{% endgeneration %}``: what the model is to learn to write."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self._around = ("", "")
        environment.extend(generations_between=self.generations_between)

    def parse(self, parser: Parser) -> nodes.Node:
        """Called by Jinja at the tag."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    @contextmanager
    def generations_between(self, begin: str, end: str) -> Iterator[None]:
        """Put characters around what is generated. They go with it through macros, set blocks and filters."""
        self._around = (begin, end)
        try:
            yield
        finally:
            self._around = ("", "")

    def _note(self, caller: Callable[[], str]) -> str:
        begin, end = self._around
        return begin + caller() + end


def _to_json(
    value: Any,  # noqa: ANN401 - any JSON
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    """The fixed date in the form that is asked for."""
    return FIXED_DAY.strftime(str(form))


def _raise(message: object) -> None:
    raise TemplateError(str(message))


class _Dict:
    """`dict` without the attributes of a class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:  # noqa: ANN401
        return dict(*args, **kwargs)


class _Namespace(Namespace):
    """Jinja's, closed to names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - so that a name may be `self`
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _refuse_underscore(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:  # noqa: ANN401
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"{name!r} begins with an underscore")
