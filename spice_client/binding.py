"""Operations as methods of a client, with and without asyncio. Signature and documentation are the operation's own."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from spice_client.async_transport import AsyncTransport
    from spice_client.steps import Steps
    from spice_client.transport import Transport

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Blocking(Protocol):
    """Whatever has a transport."""

    _transport: Transport


class Awaiting(Protocol):
    """Whatever has a transport for an event loop."""

    _transport: AsyncTransport


def blocking(operation: Callable[Arguments, Steps[Result]]) -> Callable[Concatenate[Blocking, Arguments], Result]:
    """A method that carries an operation out and waits for it."""

    def method(self: Blocking, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return self._transport.run(operation(*args, **kwargs))

    return _as_method(method, operation)


def awaitable(
    operation: Callable[Arguments, Steps[Result]],
) -> Callable[Concatenate[Awaiting, Arguments], Awaitable[Result]]:
    """A coroutine method that carries an operation out."""

    async def method(self: Awaiting, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await self._transport.run(operation(*args, **kwargs))

    return _as_method(method, operation)


Method = TypeVar("Method", bound="Callable[..., object]")


def _as_method(method: Method, operation: Callable[..., object]) -> Method:
    """Name and document a method as the operation, with its parameters after `self` and its result as its own."""
    functools.update_wrapper(method, operation)
    signature = inspect.signature(operation)
    result = str(signature.return_annotation).removeprefix("Steps[").removesuffix("]")
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()], return_annotation=result)  # type: ignore[attr-defined]
    return method
