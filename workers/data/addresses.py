"""Which network addresses a dataset may be fetched from, decided when the socket is made.

A check of the host name before the request would not hold: the name may resolve to another address a moment
later, and a redirect names another host. The socket is the one place that every attempt passes.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(OSError):
    """A connection to an address that is not public."""


def is_public(address: str) -> bool:
    """Whether an IPv4 or IPv6 address (scope allowed) is on the public internet, as are those embedded in it."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if not ip.is_global or ip.is_multicast:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            embedded.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        return all(v4.is_global and not v4.is_multicast for v4 in embedded if v4 is not None)
    return True


class PublicSockets:
    """An aiohttp socket factory that makes sockets for public addresses only.

    Attributes:
        refused: Addresses that were asked for and refused.
    """

    def __init__(self) -> None:
        self.refused: list[str] = []

    def __call__(self, address_info: tuple[Any, ...]) -> socket.socket:
        """Make the socket; AddressRefused if ``address_info`` (as of getaddrinfo) is not public."""
        family, kind, protocol, _, address = address_info
        if not is_public(address[0]):
            self.refused.append(address[0])
            raise AddressRefused(f"{address[0]} is not a public address")
        return socket.socket(family=family, type=kind, proto=protocol)
