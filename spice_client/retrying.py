"""When a request is sent again, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenacity import RetryCallState, retry_if_exception, stop_before_delay

from spice_client.problems import ServiceUnreachable, SpiceError

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_S, MOST_S = 0.5, 8.0


def _silent(_failure: SpiceError) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the client sits out what passes by itself.

    Connection errors and the answers 429, 502, 503 and 504 do. Requests are safe to send again: every POST carries an
    idempotency key, and if the service is still at work on the first one (409 `idempotency-key-in-use`), so does that.

    Attributes:
        seconds: Of one outage.
        until_first_answer: Whether a service that has never answered is waited for as well; a command that a person
            types rather says so at once.
        waiting: Is told of each failure before the next try.
    """

    seconds: float = 60.0
    until_first_answer: bool = True
    waiting: Callable[[SpiceError], None] = _silent

    def policy(self, *, answered: bool, waiting: Callable[[SpiceError], None] | None = None) -> dict[str, Any]:
        """Arguments of tenacity's `Retrying` and `AsyncRetrying`.

        Args:
            answered: Whether the service has answered anything yet.
            waiting: Is told instead of the attribute of this name.
        """
        tell = waiting or self.waiting

        def passes(error: BaseException) -> bool:
            if not isinstance(error, SpiceError) or not error.transient:
                return False
            never_there = isinstance(error, ServiceUnreachable) and error.refused and not answered
            return self.until_first_answer or not never_there

        return {
            "retry": retry_if_exception(passes),
            "stop": stop_before_delay(self.seconds),
            "wait": _wait_s,
            "before_sleep": lambda state: tell(_failure(state)),
            "reraise": True,
        }


def back_off_s(attempt: int, failure: SpiceError) -> float:
    """Seconds before attempt `attempt + 1`: growing, spread by chance, and as long as the service asks for."""
    spread = random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients in time, and hides nothing
    return max(min(MOST_S, FIRST_S * 2.0 ** (attempt - 1)) * spread, failure.retry_after or 0.0)


def _wait_s(state: RetryCallState) -> float:
    return back_off_s(state.attempt_number, _failure(state))


def _failure(state: RetryCallState) -> SpiceError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, SpiceError)  # noqa: S101 - `retry` lets no other through
    return error
