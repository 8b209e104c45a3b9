"""The service as seen by the client commands."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from spice_client.cli.exit_codes import ExitCode
from spice_client.cli.failure import CommandFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from tenacity import RetryCallState

Json = dict[str, Any]

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
SERVER_ERROR = 500
BODY_SHOWN = 500


def _authorization() -> dict[str, str]:
    key = os.environ.get("SPICE_API_KEY", "").strip()
    return {"Authorization": f"Bearer {key}"} if key else {}


class Service:
    """The HTTP interface, with failures as exit statuses."""

    def __init__(self, url: str) -> None:
        """Name the service; no connection is made yet.

        Raises:
            CommandFailedError: The URL is none.
        """
        self.url = url.rstrip("/")
        try:
            self._http = httpx.Client(
                base_url=self.url, timeout=TIMEOUT, follow_redirects=True, headers=_authorization()
            )
        except httpx.InvalidURL as error:
            problem = {"title": "The service's URL is not valid", "detail": f"--url {url}: {error}"}
            raise CommandFailedError(ExitCode.REFUSED, problem) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, request: Json) -> Json:
        """`POST /jobs`: the queued job."""
        return self._json("POST", "/jobs", json=request)

    def job(self, job_id: str) -> Json:
        """`GET /jobs/{id}`."""
        return self._json("GET", f"/jobs/{job_id}")

    def cancel(self, job_id: str) -> Json:
        """`POST /jobs/{id}/cancel`: the job."""
        return self._json("POST", f"/jobs/{job_id}/cancel")

    def jobs(self, state: str | None) -> Iterator[Json]:
        """`GET /jobs`, page after page, newest first."""
        cursor = None
        while True:
            wanted = {"state": state, "cursor": cursor}
            page = self._json("GET", "/jobs", params={key: value for key, value in wanted.items() if value})
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def subset(self, job_id: str, params: Json) -> AbstractContextManager[httpx.Response]:
        """`GET /jobs/{id}/subset` as a stream; hand the response to `check` before reading it."""
        return self._http.stream("GET", f"/jobs/{job_id}/subset", params=params)

    def patiently(
        self, ask: Callable[[], Json], patience_s: float, waiting: Callable[[CommandFailedError], None]
    ) -> Json:
        """Ask again and again while the service cannot be reached, up to `patience_s` seconds.

        Args:
            ask: The request.
            patience_s: Seconds of one outage that are sat out.
            waiting: Is told of each failure before the next try.
        """

        def tell(state: RetryCallState) -> None:
            failure = state.outcome.exception() if state.outcome else None
            if isinstance(failure, CommandFailedError):
                waiting(failure)

        attempts = Retrying(
            retry=retry_if_exception(
                lambda error: isinstance(error, CommandFailedError) and error.code is ExitCode.UNREACHABLE
            ),
            stop=stop_after_delay(patience_s),
            wait=wait_exponential_jitter(multiplier=0.5, max=5),
            before_sleep=tell,
            reraise=True,
        )
        return attempts(ask)

    def unreachable(self, error: httpx.HTTPError) -> CommandFailedError:
        """The failure for a request that got no whole answer."""
        detail = f"{self.url} does not answer ({error or type(error).__name__}): is `spice serve` running? See --url"
        return CommandFailedError(ExitCode.UNREACHABLE, {"title": "The service cannot be reached", "detail": detail})

    def check(self, response: httpx.Response) -> None:
        """Raise a failure for an answer that is an error; the problem is the answer's own, if it has one."""
        if response.is_success:
            return
        response.read()
        try:
            problem = response.json()
        except ValueError:
            problem = None
        if not isinstance(problem, dict) or "title" not in problem:
            detail = f"{response.request.url} answered: {response.text[:BODY_SHOWN]}"
            problem = {"title": f"{response.status_code} {response.reason_phrase}", "detail": detail}
        server_fault = response.status_code >= SERVER_ERROR
        raise CommandFailedError(ExitCode.UNREACHABLE if server_fault else ExitCode.REFUSED, problem)

    def _json(self, method: str, path: str, **how: Any) -> Json:  # noqa: ANN401 - httpx's own options
        try:
            response = self._http.request(method, path, **how)
        except httpx.HTTPError as error:
            raise self.unreachable(error) from None
        self.check(response)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            detail = f"{response.request.url} did not answer with JSON: does --url name the service?"
            problem = {"title": "This is not the service", "detail": detail}
            raise CommandFailedError(ExitCode.REFUSED, problem)
        return answer
