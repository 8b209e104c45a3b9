"""Which URLs may receive webhooks: https on public addresses, checked when the connection is made."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.core.uris.addresses import AddressRefused, is_public

if TYPE_CHECKING:
    from app.core.settings import Settings

LONGEST_URL = 2000


class WebhookRefused(ValueError):
    """A URL that may not receive webhooks. The message names the value and the remedy."""


def check_webhook_url(url: str, settings: Settings) -> None:
    """Check a URL without using the network.

    Raises:
        WebhookRefused: Webhooks are off, or the URL is not https, has credentials or names a private address.
    """
    if settings.webhook_secret is None:
        raise WebhookRefused("webhooks are off here, as they can't be signed: the operator sets SPICE_WEBHOOK_SECRET")
    if (
        len(url) > LONGEST_URL
        or not url.isascii()
        or any(character <= " " or character in "\\\x7f" for character in url)
    ):
        raise WebhookRefused(f"must be a URL of at most {LONGEST_URL} ASCII characters, without spaces or backslashes")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise WebhookRefused(f"is not a URL ({error})") from None
    try:
        (host or "").encode("idna")  # as the lookup will
    except UnicodeError as error:
        raise WebhookRefused(f"names {host!r}, which no host can be called ({error})") from None
    if parts.scheme not in (("https", "http") if settings.webhook_allow_private else ("https",)):
        raise WebhookRefused(f"has scheme {parts.scheme!r}: use https, so that nobody reads or changes it on its way")
    if not host or "@" in parts.netloc or parts.fragment:
        raise WebhookRefused("must name a host, without credentials and without a fragment: https://host/path")
    if not settings.webhook_allow_private and _plainly_private(host):
        raise WebhookRefused(f"names {host!r}, which is not on the public internet: give a public host")


def public_address(host: str, port: int, settings: Settings) -> str:
    """An address to connect to, of those that a host has now: what is checked is what is connected to.

    Raises:
        AddressRefused: An address of the host is not public.
        OSError: The host has no address.
    """
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    refused = [address for address in found if not is_public(address)]
    if refused and not settings.webhook_allow_private:
        raise AddressRefused(f"{host} is at {refused[0]}, which is not a public address")
    return found[0]


def _plainly_private(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return not is_public(name)
    except ValueError:
        return False  # a host name: its addresses are checked at each delivery
