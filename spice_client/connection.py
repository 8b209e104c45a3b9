"""Where the service is and how it is reached: what both transports share."""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

import httpx

from spice_client.models import Event
from spice_client.problems import KeyInvalid, NotTheService, UrlInvalid, refusal_of
from spice_client.retrying import Patience

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from httpx_sse import ServerSentEvent

    from spice_client.steps import Ask

DEFAULT_URL = "http://127.0.0.1:8000"
REQUEST_S, CONNECT_S = 30.0, 5.0
PIECE_BYTES = 1 << 18
SILENCE_S = 60.0  # a stream of events has a heartbeat; one that is silent for longer is broken


@dataclass(slots=True)
class Connection:
    """How a client reaches the service.

    Attributes:
        url: Where the service is.
        api_key: The key that requests carry.
        patience: How long what passes by itself is sat out.
        answered: Whether the service has answered anything yet.
    """

    url: str
    api_key: str | None = field(repr=False)
    patience: Patience
    answered: bool = False

    @classmethod
    def to(cls, url: str | None, api_key: str | None, patience: float | Patience) -> Self:
        """What is not given comes from the environment: `SPICE_API_URL`, `SPICE_API_KEY`."""
        return cls(
            (url or os.environ.get("SPICE_API_URL") or DEFAULT_URL).rstrip("/"),
            (api_key or os.environ.get("SPICE_API_KEY") or "").strip() or None,
            patience if isinstance(patience, Patience) else Patience(patience),
        )

    def options(self) -> dict[str, Any]:
        """Arguments of `httpx.Client` and `httpx.AsyncClient`.

        Raises:
            UrlInvalid: The URL is none.
            KeyInvalid: The key is none that a header could have.
        """
        headers = {"User-Agent": f"spice-client/{version('spice-select')}"}
        if self.api_key:
            if not re.fullmatch(r"[!-~]+", self.api_key):
                raise KeyInvalid
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            base_url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise UrlInvalid(self.url, error) from None
        if base_url.scheme not in ("http", "https") or not base_url.host:
            raise UrlInvalid(self.url, f"give the whole URL, as in {_likely(self.url)}")
        return {
            "base_url": base_url,
            "headers": headers,
            "timeout": httpx.Timeout(REQUEST_S, connect=CONNECT_S),
            "follow_redirects": True,
        }


def _likely(url: str) -> str:
    """What was probably meant by a URL without its beginning."""
    found = re.fullmatch(r"(?:\w+://)?([\w.-]+(?::\d+)?)(/.*)?", url)
    return f"http://{found.group(1)}" if found and found.group(1) else DEFAULT_URL


def request_options(ask: Ask) -> dict[str, Any]:
    """Arguments of httpx's `request` and `stream`."""
    params = {name: value for name, value in ask.params.items() if value is not None}
    return {
        "method": ask.method,
        "url": ask.path,
        "params": params,
        "json": ask.json,
        "content": None if ask.file is None else pieces_of(ask.file),
        "headers": dict(ask.headers),
    }


def pieces_of(file: Path) -> Iterator[bytes]:
    """A file's content, a piece at a time."""
    with file.open("rb") as content:
        while piece := content.read(PIECE_BYTES):
            yield piece


async def awaited_pieces_of(file: Path) -> AsyncIterator[bytes]:
    """Likewise, read beside the event loop."""
    with await asyncio.to_thread(file.open, "rb") as content:
        while piece := await asyncio.to_thread(content.read, PIECE_BYTES):
            yield piece


def stream_timeout(for_s: float | None) -> httpx.Timeout:
    """Timeouts of a stream of events."""
    return httpx.Timeout(
        REQUEST_S, connect=CONNECT_S, read=SILENCE_S if for_s is None else max(0.1, min(SILENCE_S, for_s))
    )


def checked(response: httpx.Response, *, again: bool = False) -> httpx.Response:
    """An answer that is no error; its body is read if it is one.

    Args:
        response: The answer.
        again: Whether the request was sent before. What is not there any more on the second try was deleted by the
            first.

    Raises:
        Refused: It is an error.
    """
    deleted_before = again and response.request.method == "DELETE" and response.status_code == httpx.codes.NOT_FOUND
    if response.is_success or deleted_before:
        return response
    raise refusal_of(response)


def event_of(sent: ServerSentEvent) -> Event | None:
    """A job's event; None for what is none."""
    return Event.model_validate_json(sent.data) if sent.data else None


def is_stream(response: httpx.Response) -> bool:
    """Whether events follow. A job that has ended and has no more to tell answers 204.

    Raises:
        NotTheService: Something else follows.
    """
    if response.status_code == httpx.codes.NO_CONTENT:
        return False
    if "text/event-stream" not in response.headers.get("Content-Type", ""):
        raise NotTheService(response, "did not answer with a stream of events")
    return True


class TimedStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that ends with a timeout at a moment, however lively it is: heartbeats keep httpx's own from ending it."""

    def __init__(self, stream: Any, for_s: float | None) -> None:  # noqa: ANN401 - httpx's own, of either kind
        self._stream = stream
        self._ends = None if for_s is None else time.monotonic() + for_s

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._look()
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._look()
            yield chunk

    def close(self) -> None:
        """Close what is behind it."""
        self._stream.close()

    async def aclose(self) -> None:
        """Close what is behind it."""
        await self._stream.aclose()

    def _look(self) -> None:
        if self._ends is not None and time.monotonic() >= self._ends:
            raise httpx.ReadTimeout("the time is over")
