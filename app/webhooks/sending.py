"""Send one message over HTTP, to an address that was checked, within a time that no receiver can stretch."""

from __future__ import annotations

import asyncio
import ssl
from functools import cache
from typing import TYPE_CHECKING

import httpx

from app.webhooks.urls import WebhookRefused, check_webhook_url, public_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.core.settings import Settings


def send(url: str, body: str, headers: Mapping[str, str], settings: Settings) -> tuple[int | None, str | None]:
    """POST a message: no redirect is followed, no proxy asked, nothing of the answer read but its status.

    Returns:
        The status, if there was an answer, and what went wrong, if anything did.
    """
    try:
        check_webhook_url(url, settings)
        target = httpx.URL(url)
        address = public_address(target.host, target.port or (443 if target.scheme == "https" else 80), settings)
        status = asyncio.run(_posted(target, address, body, headers, settings.webhook_timeout_s))
    except TimeoutError:
        return None, f"did not answer within {settings.webhook_timeout_s:g} s"
    except (WebhookRefused, OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        return None, f"{type(error).__name__}: {error}"[:500]
    return status, None if 200 <= status < 300 else f"answered {status}, not 2xx"  # noqa: PLR2004 - HTTP's own


async def _posted(target: httpx.URL, address: str, body: str, headers: Mapping[str, str], timeout_s: float) -> int:
    """The status of the answer. httpx has time-outs for each read alone, so a drip would hold it for ever."""
    own = {"Host": target.netloc.decode("ascii"), "Content-Type": "application/json", "User-Agent": "spice-webhooks"}
    async with (
        asyncio.timeout(timeout_s),
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


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
