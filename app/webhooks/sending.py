"""Send one message over HTTP to a checked address, within a time that the receiver can't extend."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ssl
import threading
from functools import cache, partial
from typing import TYPE_CHECKING

import httpx

from app.webhooks.urls import WebhookRefused, check_webhook_url, public_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.core.settings import Settings


def send(url: str, body: str, headers: Mapping[str, str], settings: Settings) -> tuple[int | None, str | None]:
    """POST a message. Redirects are not followed, proxies are not used, and only the answer's status is read.

    Returns:
        The status, if there was an answer, and what went wrong, if anything did.
    """
    try:
        check_webhook_url(url, settings)
        status = asyncio.run(_posted(httpx.URL(url), body, headers, settings))
    except TimeoutError:
        return None, f"did not answer within {settings.webhook_timeout_s:g} s"
    except (WebhookRefused, OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        return None, f"{type(error).__name__}: {error}"[:500]
    return status, None if 200 <= status < 300 else f"answered {status}, not 2xx"  # noqa: PLR2004 - HTTP's own


async def _posted(target: httpx.URL, body: str, headers: Mapping[str, str], settings: Settings) -> int:
    """The status of the answer. httpx limits each read, not the whole request: an answer that drips would never end."""
    own = {"Host": target.netloc.decode("ascii"), "Content-Type": "application/json", "User-Agent": "spice-webhooks"}
    async with asyncio.timeout(settings.webhook_timeout_s):
        port = target.port or (443 if target.scheme == "https" else 80)
        address = await _on_a_thread(partial(public_address, target.host, port, settings))
        async with (
            httpx.AsyncClient(timeout=None, trust_env=False, verify=_tls()) as client,  # noqa: S113 - the block has one
            client.stream(
                "POST",
                target.copy_with(host=address),
                content=body,
                headers={**headers, **own},
                extensions={"sni_hostname": target.host},
            ) as answer,
        ):
            return answer.status_code


async def _on_a_thread(look_up: Callable[[], str]) -> str:
    """The result of a DNS look-up on a thread. A look-up can't be cancelled; after a time-out it ends by itself."""
    found: concurrent.futures.Future[str] = concurrent.futures.Future()

    def run() -> None:
        try:
            result = look_up()
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            outcome: Callable[[], None] = partial(found.set_exception, error)
        else:
            outcome = partial(found.set_result, result)
        with contextlib.suppress(concurrent.futures.InvalidStateError, RuntimeError):  # the time-out came first
            outcome()

    threading.Thread(target=run, name="webhook-dns", daemon=True).start()
    return await asyncio.wrap_future(found)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
