"""What the client does, apart from how it is sent.

An operation is a generator: it yields a step, gets back what came of it, and returns its result in the end. The two
transports carry steps out, one with and one without asyncio; nothing else of the client is there twice.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from spice_client.problems import IdempotencyKeyInvalid, NotTheService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import httpx

    from spice_client.models import Event
    from spice_client.problems import SpiceError


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request; comes back as the whole `httpx.Response`, which is no error.

    `file` is the body, where it is a file. `waiting` is told of each failure that is sat out.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    waiting: Callable[[SpiceError], None] | None = None


@dataclass(frozen=True, slots=True)
class Receive:
    """Send a request once and hand its answer's body to a sink as it comes."""

    ask: Ask
    sink: Sink


@dataclass(frozen=True, slots=True)
class Listen:
    """Hear a stream of server-sent events until it ends, `hear` says so, or `for_s` seconds are over.

    Comes back when the stream is over, however it ended; a refusal is raised.
    """

    ask: Ask
    hear: Callable[[Event], None]
    for_s: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AskPatience:
    """Comes back as the client's `Patience`."""


class Sink(Protocol):
    """Where the body of an answer goes."""

    def begin(self, response: httpx.Response) -> None:
        """An answer begins; its headers are there."""

    def write(self, chunk: bytes) -> None:
        """The next bytes of it."""


Result = TypeVar("Result")
Model = TypeVar("Model", bound=BaseModel)
Step = Ask | Receive | Listen | Pause | AskPatience
Steps = Generator[Step, Any, Result]


def new_key(given: str | None = None) -> dict[str, str]:
    """The header of a POST by which the service knows it again, so that a retry is answered and not carried out twice.

    Args:
        given: The key; left out, one is made up.

    Raises:
        IdempotencyKeyInvalid: A header can't carry it.
    """
    if given is not None and not (given.isascii() and given.isprintable() and given.strip() == given != ""):
        raise IdempotencyKeyInvalid(given)
    return {"Idempotency-Key": given or str(uuid4())}


def ask(request: Ask) -> Steps[httpx.Response]:
    """Send a request."""
    response: httpx.Response = yield request
    return response


def ask_for(model: type[Model], request: Ask) -> Steps[Model]:
    """Send a request and read its answer.

    Raises:
        NotTheService: The answer is no such document.
    """
    response = yield from ask(request)
    try:
        answer = response.json()
    except ValueError:
        raise NotTheService(response) from None
    if not isinstance(answer, dict):
        raise NotTheService(response)
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        what = f"did not answer with a {model.__name__.lower()} ({place}: {fault['msg']})"
        raise NotTheService(response, what) from None
