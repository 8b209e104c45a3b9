"""Refuse requests from other sites' pages, where the service asks for no keys.

Any web page that this machine's user opens can send requests to 127.0.0.1, and can read the answers if the page's own
host name is made to resolve to 127.0.0.1 (DNS rebinding). Browsers set the headers Host and Origin, and pages can't
change them, so these two headers show both cases. Where the service asks for keys the check is off: a page has no key.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.http.problems import OtherSite

if TYPE_CHECKING:
    from starlette.datastructures import Headers


def refuse_other_sites(headers: Headers) -> None:
    """Let a request pass if Host names this machine and Origin, if sent, is a page of this machine.

    Raises:
        OtherSite: Host names another machine, or Origin is another site's page.
    """
    host, origin = headers.get("host"), headers.get("origin")
    if host is not None and not _is_this_machine(host):
        raise OtherSite(
            f"The request is for {host!r}. A service that asks for no keys answers to localhost and 127.0.0.1 alone: "
            "call it so, or have it ask for keys (SPICE_AUTH=keys)."
        )
    if origin is not None and not _is_this_machine(origin.partition("://")[2]):
        raise OtherSite(
            f"The request comes from a page of {origin!r}. A service that asks for no keys takes none from other "
            "sites: have it ask for keys (SPICE_AUTH=keys)."
        )


@lru_cache(maxsize=256)
def _is_this_machine(authority: str) -> bool:
    """Whether `host`, `host:port` or `[address]:port` is certain to mean this machine."""
    try:
        name = (urlsplit(f"//{authority}").hostname or "").removesuffix(".")
        return name == "localhost" or name.endswith(".localhost") or ip_address(name).is_loopback
    except ValueError:
        return False
