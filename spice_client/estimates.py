"""What a job would take, before it is submitted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from spice_client.models import FINAL, Estimate
from spice_client.problems import WaitTimedOut
from spice_client.steps import Ask, Pause, Steps, ask_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spice_client.requests import JobRequest

ESTIMATES = "/estimates"
EVERY_S = 1.0


def estimate(request: JobRequest | Mapping[str, Any], *, timeout: float | None = None) -> Steps[Estimate]:
    """Have a worker check a request and tell time, tokens, bytes and memory of its job. No job is made.

    Args:
        request: The body of `POST /jobs`.
        timeout: Seconds to wait at most for a worker to look at it; None for ever.

    Raises:
        InvalidRequest: A field is wrong, or the job would fail: `type` and `errors` are those that it would have.
        WaitTimedOut: The time is over.
    """
    began = time.monotonic()
    found = yield from ask_for(Estimate, Ask("POST", ESTIMATES, json=request))
    while found.state not in FINAL:
        if timeout is not None and time.monotonic() - began > timeout:
            raise WaitTimedOut(str(found.id), timeout)
        yield Pause(EVERY_S)
        found = yield from ask_for(Estimate, Ask("GET", f"{ESTIMATES}/{found.id}"))
    return found
