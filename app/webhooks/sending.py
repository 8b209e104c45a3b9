"""Send one message over HTTP, to an address that was checked."""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING

import httpx

from app.webhooks.urls import WebhookRefused, check_webhook_url, public_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.settings import Settings


def send(url: str, body: str, headers: Mapping[str, str], settings: Settings) -> tuple[int | None, str | None]:
    """POST a message: no redirect is followed, no proxy asked, nothing of the answer read but its status.

    Returns:
        The status, if there was an answer, and what went wrong, if anything did.
    """
    try:
        check_webhook_url(url, settings)
        target = httpx.URL(url)
        address = public_address(target.host, target.port or (443 if target.scheme == "https" else 80), settings)
        host = target.netloc.decode("ascii")
        with (
            httpx.Client(timeout=settings.webhook_timeout_s, trust_env=False, verify=_tls()) as client,
            client.stream(
                "POST",
                target.copy_with(host=address),
                content=body,
                headers={**headers, "Host": host, "Content-Type": "application/json", "User-Agent": "spice-webhooks"},
                extensions={"sni_hostname": target.host},
            ) as answer,
        ):
            wrong = None if answer.is_success else f"answered {answer.status_code}, not 2xx"
            return answer.status_code, wrong
    except (WebhookRefused, OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        return None, f"{type(error).__name__}: {error}"[:500]


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
