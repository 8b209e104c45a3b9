"""Carries steps out, and waits for each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from httpx_sse import EventSource
from tenacity import Retrying

from spice_client.connection import (
    Connection,
    TimedStream,
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


class Transport:
    """One connection pool to the service."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._http = httpx.Client(**connection.options())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, steps: Steps[Result]) -> Result:
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
                resume, outcome = steps.send, self._carry_out(step)
            except BaseException as error:  # noqa: BLE001 - the operation may catch it; if not, it comes out of `throw`
                resume, outcome = steps.throw, error

    def _carry_out(self, step: Step) -> Any:  # noqa: ANN401 - each step says what comes of it
        match step:
            case Ask():
                return self._ask(step)
            case Receive():
                return self._receive(step)
            case Listen():
                return self._listen(step)
            case Pause():
                return time.sleep(step.seconds)
            case AskPatience():
                return self._connection.patience

    def _ask(self, ask: Ask) -> httpx.Response:
        policy = self._connection.patience.policy(answered=self._connection.answered, waiting=ask.waiting)
        for attempt in Retrying(**policy):
            with attempt:
                again = attempt.retry_state.attempt_number > 1
                try:
                    response = self._http.request(**request_options(ask))
                except httpx.HTTPError as error:
                    raise ServiceUnreachable(self._connection.url, error) from None
                self._connection.answered = True
                return checked(response, again=again)
        raise AssertionError("the last attempt raises")

    def _receive(self, step: Receive) -> None:
        try:
            with self._http.stream(**request_options(step.ask)) as response:
                self._connection.answered = True
                if not response.is_success:
                    response.read()
                    raise refusal_of(response)
                step.sink.begin(response)
                for chunk in response.iter_bytes():
                    step.sink.write(chunk)
        except httpx.HTTPError as error:
            raise ServiceUnreachable(self._connection.url, error) from None

    def _listen(self, step: Listen) -> None:
        try:
            with self._http.stream(**request_options(step.ask), timeout=stream_timeout(step.for_s)) as response:
                if not response.is_success:
                    response.read()
                    raise refusal_of(response)
                if not is_stream(response):
                    return
                response.stream = TimedStream(response.stream, step.for_s)
                for sent in EventSource(response).iter_sse():
                    if event := event_of(sent):
                        step.hear(event)
        except httpx.HTTPError:
            return  # whoever listens looks at the job anyway
