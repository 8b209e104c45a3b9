"""Carries steps out in an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from httpx_sse import EventSource
from tenacity import AsyncRetrying

from spice_client.connection import (
    Connection,
    TimedStream,
    awaited_pieces_of,
    checked,
    event_of,
    is_stream,
    request_options,
    stream_timeout,
)
from spice_client.problems import ServiceUnreachable, refusal_of
from spice_client.steps import Ask, AskPatience, Listen, Pause, Receive, Step

if TYPE_CHECKING:
    from spice_client.steps import Steps

Result = TypeVar("Result")


class AsyncTransport:
    """One connection pool to the service, as `spice_client.transport.Transport`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._http = httpx.AsyncClient(**connection.options())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, steps: Steps[Result]) -> Result:
        """Carry an operation out.

        Raises:
            SpiceError: As the operation's own.
        """
        resume: Any = steps.send
        outcome: Any = None
        while True:
            try:
                step = resume(outcome)
            except StopIteration as end:
                result: Result = end.value
                return result
            try:
                resume, outcome = steps.send, await self._carry_out(step)
            except BaseException as error:  # noqa: BLE001 - the operation may catch it; if not, it comes out of `throw`
                resume, outcome = steps.throw, error

    async def _carry_out(self, step: Step) -> Any:  # noqa: ANN401 - each step says what comes of it
        match step:
            case Ask():
                return await self._ask(step)
            case Receive():
                return await self._receive(step)
            case Listen():
                return await self._listen(step)
            case Pause():
                return await asyncio.sleep(step.seconds)
            case AskPatience():
                return self._connection.patience

    async def _ask(self, ask: Ask) -> httpx.Response:
        policy = self._connection.patience.policy(answered=self._connection.answered, waiting=ask.waiting)
        async for attempt in AsyncRetrying(**policy):
            with attempt:
                again = attempt.retry_state.attempt_number > 1
                try:
                    response = await self._http.request(**_options(ask))
                except httpx.HTTPError as error:
                    raise ServiceUnreachable(self._connection.url, error) from None
                self._connection.answered = True
                return checked(response, again=again)
        raise AssertionError("the last attempt raises")

    async def _receive(self, step: Receive) -> None:
        try:
            async with self._http.stream(**request_options(step.ask)) as response:
                self._connection.answered = True
                if not response.is_success:
                    await response.aread()
                    raise refusal_of(response)
                step.sink.begin(response)
                async for chunk in response.aiter_bytes():
                    step.sink.write(chunk)
        except httpx.HTTPError as error:
            raise ServiceUnreachable(self._connection.url, error) from None

    async def _listen(self, step: Listen) -> None:
        try:
            async with self._http.stream(**request_options(step.ask), timeout=stream_timeout(step.for_s)) as response:
                if not response.is_success:
                    await response.aread()
                    raise refusal_of(response)
                if not is_stream(response):
                    return
                response.stream = TimedStream(response.stream, step.for_s)
                async for sent in EventSource(response).aiter_sse():
                    if event := event_of(sent):
                        step.hear(event)
        except httpx.HTTPError:
            return  # whoever listens looks at the job anyway


def _options(ask: Ask) -> dict[str, Any]:
    options = request_options(ask)
    return options if ask.file is None else {**options, "content": awaited_pieces_of(ask.file)}
