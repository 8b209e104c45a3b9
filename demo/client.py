"""The demo's side of the HTTP API: post a job, watch it, fetch what it made."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx

from demo.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLL_S = 0.5
FINAL_STATES = {"succeeded", "failed", "cancelled"}

Json = dict[str, Any]


class RequestRefusedError(Exception):
    """The service answered with a problem."""

    def __init__(self, response: httpx.Response) -> None:
        try:
            problem = response.json()
            text = json.dumps(problem, indent=2, ensure_ascii=False)
        except ValueError:
            text = response.text
        super().__init__(f"{response.request.method} {response.request.url} got {response.status_code}:\n{text}")


class Client:
    """Talks to one service."""

    def __init__(self, address: str) -> None:
        self._http = httpx.Client(base_url=address, timeout=60, trust_env=False)

    def submit(self, request: Json) -> Json:
        """Posts a job and returns it."""
        job: Json = _checked(self._http.post("/jobs", json=request)).json()
        return job

    def watch(self, job: Json) -> Iterator[Json]:
        """The job's states, the final one last. Whoever stops listening before that cancels the job."""
        try:
            while job["state"] not in FINAL_STATES:
                yield job
                time.sleep(POLL_S)
                job = self.get(f"/jobs/{job['id']}")
        except (GeneratorExit, KeyboardInterrupt):
            with suppress(httpx.TransportError):
                self._http.post(f"/jobs/{job['id']}/cancel")
            raise
        yield job

    def get(self, path: str) -> Json:
        """A JSON answer."""
        answer: Json = _checked(self._http.get(path)).json()
        return answer

    def download(self, path: str, target: Path) -> None:
        """An answer of any size, into a file."""
        with self._http.stream("GET", path) as response, replacing(target) as temporary:
            if response.is_error:
                response.read()
            _checked(response)
            with temporary.open("wb") as file:
                for block in response.iter_bytes():
                    file.write(block)


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise RequestRefusedError(response)
    return response
