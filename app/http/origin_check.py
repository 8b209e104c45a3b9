"""Keeps the pages of other sites out of a service that asks for no keys.

Any page that this machine's user looks at may send requests to 127.0.0.1, and reads the answers if its own name turns
into that address (DNS rebinding). The headers that browsers set, and pages can't, tell both. Where keys are asked for
none of this is needed: a page has none.
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
    """Let only those pass who call this machine by a name of its own, and no page from elsewhere.

    Raises:
        OtherSite: The request is for another name, or comes from another site's page.
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
    """Whether `host`, `host:port` or `[address]:port` can't be anything but this machine."""
    try:
        name = (urlsplit(f"//{authority}").hostname or "").removesuffix(".")
        return name == "localhost" or name.endswith(".localhost") or ip_address(name).is_loopback
    except ValueError:
        return False
